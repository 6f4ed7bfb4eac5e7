/** Asks another service over its unix socket, `<run>/api.sock`. Errors arrive as KeelsonError. */
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import { errorOf } from "#lib/rpc/problem.ts";

export class ServiceCaller {
  readonly #timeoutMs: number;
  readonly #socket: string;
  readonly #fetch: typeof fetch;

  /** `run`: the service's run directory. */
  constructor(run: string, timeoutMs = 10_000) {
    this.#timeoutMs = timeoutMs;
    this.#socket = join(run, "api.sock");
    this.#fetch = unixFetch(this.#socket, timeoutMs);
  }

  /** The answer's document; a problem document is thrown as the KeelsonError that it is. */
  async json<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    const answer = await this.#fetch(`http://unix/v1/${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      signal: AbortSignal.timeout(this.#timeoutMs),
    });
    if (answer.status === 204) return undefined as Answer;
    const document: unknown = await answer.json().catch(() => null);
    if (!answer.ok) throw errorOf(document, answer.status);
    return document as Answer;
  }

  /** Server-sent events, until `signal` aborts or the connection ends. */
  async *events(
    path: string,
    signal: AbortSignal,
  ): AsyncGenerator<{ event: string; data: string }> {
    const answer = await this.#fetch(`http://unix/v1/${path}`, { signal });
    if (!answer.ok || answer.body === null) {
      throw new KeelsonError("UNAVAILABLE", `No events from ${this.#socket} (${answer.status}).`);
    }
    const decoder = new TextDecoder();
    let text = "";
    for await (const part of answer.body as unknown as AsyncIterable<Uint8Array>) {
      text += decoder.decode(part, { stream: true });
      let end = text.indexOf("\n\n");
      while (end !== -1) {
        const fields = text.slice(0, end).split("\n");
        text = text.slice(end + 2);
        const field = (name: string) =>
          fields
            .filter((line) => line.startsWith(`${name}:`))
            .map((line) => line.slice(name.length + 1).trimStart())
            .join("\n");
        if (field("data") !== "") yield { event: field("event"), data: field("data") };
        end = text.indexOf("\n\n");
      }
    }
  }
}
