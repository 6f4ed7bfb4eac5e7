/**
 * The store's thread: it alone touches the device. It blocks in the addon's loop, serves the rings
 * of all gateways, and handles the main thread's control messages between two rounds.
 *
 *   main thread                                   this thread
 *   RingWorkerClient.call(message)  -- port -->   executor.control(message, answer)
 *                                   -- wakeFd ->  (ends the wait)
 *                                   <-- port --   answer
 *
 * Without the addon the same goes over Node's own event loop.
 */
import { type MessagePort, receiveMessageOnPort } from "node:worker_threads";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { BlockExecutor } from "#lib/volume/executor.ts";
import { StoreNetServer } from "#lib/volume/store-net-server.ts";
import { StoreRingServer } from "#lib/volume/store-ring-server.ts";
import { native } from "#native";

/** After this long the thread's own event loop gets a turn, for what little runs on it. */
const sliceMs = 200;

export type RingWorkerMessage =
  | { readonly kind: "control"; readonly id: number; readonly message: unknown }
  | { readonly kind: "stop" };

export type RingWorkerReply =
  | { readonly kind: "listening" }
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "stopped" }
  | {
      readonly kind: "failed";
      readonly code: KeelsonError["code"];
      readonly message: string;
      readonly remedy: string | undefined;
      readonly object: string | undefined;
    };

export interface RingServiceOptions {
  readonly executor: BlockExecutor;
  /** Where to listen; must not exist (the main thread has removed a stale one). */
  readonly path: string;
  readonly port: MessagePort;
  /** Signalled by the main thread after each message; -1 without the addon. */
  readonly wakeFd: number;
}

/** Serves until told to stop; then shuts the executor down. Tells the main thread how it goes. */
export async function serveRing(options: RingServiceOptions): Promise<void> {
  const { executor, port } = options;
  const tell = (reply: RingWorkerReply) => port.postMessage(reply);
  try {
    if (native === undefined) await serveByEventLoop(options, tell);
    else await serveByRing(options, tell);
    executor.shutdown();
    tell({ kind: "stopped" });
  } catch (error) {
    tell(failure(error));
  }
}

export function failure(error: unknown): RingWorkerReply {
  return {
    kind: "failed",
    code: isKeelsonError(error) ? error.code : "INTERNAL",
    message: isKeelsonError(error) ? error.message : explainError(error),
    remedy: isKeelsonError(error) ? error.remedy : undefined,
    object: isKeelsonError(error) ? error.object : undefined,
  };
}

type Tell = (reply: RingWorkerReply) => void;

/** False when the message says to stop. */
function handle(executor: BlockExecutor, message: RingWorkerMessage, tell: Tell): boolean {
  if (message.kind === "stop") return false;
  const { id } = message;
  executor.control(message.message, (answer) => tell({ kind: "answer", id, answer }));
  return true;
}

async function serveByRing(options: RingServiceOptions, tell: Tell): Promise<void> {
  const { executor, path, port, wakeFd } = options;
  let server: StoreRingServer;
  try {
    server = new StoreRingServer(native!, executor, path, wakeFd);
  } catch (cause) {
    throw new KeelsonError("PORT_IN_USE", `Cannot listen on ${path}: ${explainError(cause)}.`, {
      operation: "listen",
      object: path,
      cause,
    });
  }
  tell({ kind: "listening" });
  try {
    for (let going = true; going; ) {
      const endMs = performance.now() + sliceMs;
      do {
        server.turn(sliceMs);
        for (let next = receiveMessageOnPort(port); next !== undefined && going; ) {
          going = handle(executor, next.message as RingWorkerMessage, tell);
          next = receiveMessageOnPort(port);
        }
      } while (going && performance.now() < endMs);
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    server.stop();
  }
}

async function serveByEventLoop(options: RingServiceOptions, tell: Tell): Promise<void> {
  const { executor, path, port } = options;
  const server = new StoreNetServer(executor);
  await server.listen(path);
  tell({ kind: "listening" });
  server.turnSoon();
  await new Promise<void>((resolve) => {
    port.on("message", (message: RingWorkerMessage) => {
      if (handle(executor, message, tell)) server.turnSoon();
      else resolve();
    });
  });
  await server.stop();
}
