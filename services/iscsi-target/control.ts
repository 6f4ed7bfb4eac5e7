/** The main thread's end of the data path's thread: requests with answers, and what it reports. */
import { Worker } from "node:worker_threads";
import { type ErrorCode, KeelsonError } from "#lib/model/errors.ts";
import type { ControlAnswers, ControlRequest } from "./driver.ts";
import { createNativeWake } from "./native-driver.ts";
import type { CoreEvent } from "./target-core.ts";

export interface LoopOptions {
  /** The directory that holds the store's ring.sock. */
  readonly storeRun: string;
  readonly native: boolean;
  readonly wakeHandle: number | undefined;
}

export type LoopReply =
  | { readonly ok: true; readonly value: unknown }
  | {
      readonly ok: false;
      readonly error: {
        readonly code: ErrorCode;
        readonly message: string;
        readonly object?: string;
        readonly remedy?: string;
      };
    };

/** Worker -> main thread. */
export type LoopMessage =
  | { readonly type: "reply"; readonly id: number; readonly body: LoopReply }
  | { readonly type: "event"; readonly event: CoreEvent }
  | { readonly type: "sessions" }
  | { readonly type: "store"; readonly connected: boolean; readonly why: string };

export interface LoopListener {
  event(event: CoreEvent): void;
  sessions(): void;
  store(connected: boolean, why: string): void;
  /** The thread ended by itself: the service can't go on. */
  died(error: Error): void;
}

export interface DataLoop {
  ask<Type extends ControlRequest["type"]>(
    request: Extract<ControlRequest, { type: Type }>,
  ): Promise<ControlAnswers[Type]>;
  stop(): Promise<void>;
}

export function startLoop(
  options: { readonly storeRun: string; readonly native: boolean },
  listener: LoopListener,
): DataLoop {
  const wake = options.native ? createNativeWake() : undefined;
  const workerData: LoopOptions = {
    storeRun: options.storeRun,
    native: wake !== undefined,
    wakeHandle: wake?.handle,
  };
  const worker = new Worker(new URL("./loop-worker.ts", import.meta.url), { workerData });
  const waiting = new Map<number, { resolve(value: never): void; reject(error: Error): void }>();
  let nextId = 1;
  let stopping = false;

  worker.on("message", (message: LoopMessage) => {
    switch (message.type) {
      case "reply": {
        const asked = waiting.get(message.id);
        waiting.delete(message.id);
        const { body } = message;
        if (body.ok) asked?.resolve(body.value as never);
        else {
          const { code, message: text, object, remedy } = body.error;
          asked?.reject(
            new KeelsonError(code, text, {
              ...(object === undefined ? {} : { object }),
              ...(remedy === undefined ? {} : { remedy }),
            }),
          );
        }
        return;
      }
      case "event":
        listener.event(message.event);
        return;
      case "sessions":
        listener.sessions();
        return;
      case "store":
        listener.store(message.connected, message.why);
    }
  });
  const died = (error: Error) => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
    if (!stopping) listener.died(error);
  };
  worker.on("error", died);
  worker.on("exit", () => died(new Error("the data path's thread has ended")));

  const ask: DataLoop["ask"] = (request) =>
    new Promise((resolve, reject) => {
      const id = nextId++;
      waiting.set(id, { resolve: resolve as (value: never) => void, reject });
      worker.postMessage({ id, request });
      wake?.wake();
    });
  return {
    ask,
    async stop() {
      stopping = true;
      await Promise.race([
        ask<"stop">({ type: "stop" }),
        new Promise((resolve) => setTimeout(resolve, 3000).unref()),
      ]);
      await worker.terminate();
      wake?.close();
    },
  };
}
