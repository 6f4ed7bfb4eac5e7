import { chmodSync, existsSync, mkdirSync, unlinkSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { connect } from "node:net";
import { dirname } from "node:path";
import { getRequestListener } from "@hono/node-server";
import type { Hono } from "hono";
import { explainError, KeelsonError } from "#lib/model/errors.ts";

export interface Listener {
  readonly server: Server;
  close(): Promise<void>;
}

/**
 * Serves `app` on a unix socket, mode 0660 unless told: its directory's group decides who may talk. A socket
 * left by a killed process is replaced; one that still answers gives PORT_IN_USE.
 */
export async function serveUnix(
  app: Pick<Hono, "fetch">,
  path: string,
  mode = 0o660,
): Promise<Listener> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o750 });
  await removeStaleSocket(path);
  // No end but the caller's own: a release is passed on at the pace of whoever uploads it.
  const server = createServer({ requestTimeout: 0 }, getRequestListener(app.fetch));
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) =>
      reject(
        new KeelsonError("PORT_IN_USE", `Cannot listen on ${path}: ${explainError(cause)}.`, {
          operation: "listen",
          object: path,
          cause,
        }),
      ),
    );
    server.listen(path, resolve);
  });
  chmodSync(path, mode);
  return { server, close: () => closeServer(server) };
}

/** Stops accepting, ends idle and running connections. */
export function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

/** Unlinks a socket nobody answers on; PORT_IN_USE when somebody does. */
export async function removeStaleSocket(path: string): Promise<void> {
  if (!existsSync(path)) return;
  const alive = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
  if (alive) {
    throw new KeelsonError("PORT_IN_USE", `Another process already serves ${path}.`, {
      operation: "listen",
      object: path,
      remedy: "Stop it first, or give another --run directory.",
    });
  }
  unlinkSync(path);
}
