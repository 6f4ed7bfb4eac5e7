/**
 * Answers netboot in api's place, on `internal.sock`, for suites whose subject is netboot and
 * firmware alone. The suite `boot` runs the real api.
 */
import { mkdirSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import type { BootAnswer, BootRequest, StageReport } from "#services/api/boot-schema.ts";
import type { Lab } from "./lab.ts";

export interface BootAnswers {
  /** For `--api-run`. */
  readonly folder: string;
  readonly requests: BootRequest[];
  readonly reports: StageReport[];
  answer: BootAnswer;
  /** Resolves with the first report that fits, also one that came before. */
  reported(fits: (report: StageReport) => boolean, timeoutMs: number): Promise<StageReport>;
}

export async function bootAnswers(lab: Lab, answer: BootAnswer): Promise<BootAnswers> {
  const folder = lab.directory("api-run");
  mkdirSync(folder, { recursive: true });
  const watchers = new Set<() => void>();
  const state: BootAnswers = {
    folder,
    requests: [],
    reports: [],
    answer,
    reported: (fits, timeoutMs) =>
      new Promise((resolve, reject) => {
        const check = () => {
          const found = state.reports.find(fits);
          if (found === undefined) return;
          clearTimeout(timer);
          watchers.delete(check);
          resolve(found);
        };
        const timer = setTimeout(() => {
          watchers.delete(check);
          reject(
            new Error(`no such report within ${timeoutMs} ms: ${JSON.stringify(state.reports)}`),
          );
        }, timeoutMs);
        watchers.add(check);
        check();
      }),
  };
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    if (request.url === "/v1/boot") {
      state.requests.push(body);
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(state.answer));
    } else {
      state.reports.push(body);
      response.statusCode = 204;
      response.end();
      for (const watcher of watchers) watcher();
    }
  });
  await new Promise<void>((resolve) => server.listen(join(folder, "internal.sock"), resolve));
  lab.onEnd(() => {
    server.closeAllConnections();
    server.close();
  });
  return state;
}
