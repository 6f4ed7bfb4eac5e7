/** Run inside a namespace: one HTTP request from stdin (JSON), its answer as JSON on stdout. */
import { readFileSync } from "node:fs";

export interface HttpCall {
  readonly method: string;
  readonly url: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  /** Sent instead of `body`. */
  readonly file?: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly text: string;
}

if (import.meta.main) {
  const call = JSON.parse(readFileSync(0, "utf8")) as HttpCall;
  const body = call.file === undefined ? call.body : readFileSync(call.file);
  const response = await fetch(call.url, {
    method: call.method,
    redirect: "manual",
    ...(call.headers === undefined ? {} : { headers: call.headers }),
    ...(body === undefined ? {} : { body }),
  });
  const answer: HttpAnswer = {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    text: Buffer.from(await response.arrayBuffer()).toString("latin1"),
  };
  console.log(JSON.stringify(answer));
}
