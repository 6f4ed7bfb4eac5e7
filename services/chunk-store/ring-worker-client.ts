/** The main thread's end of the store's thread: starts it, calls it, stops it. */
import { Worker } from "node:worker_threads";
import { KeelsonError } from "#lib/model/errors.ts";
import { native } from "#native";
import type { RingWorkerMessage, RingWorkerReply } from "./ring-worker.ts";

/** What the thread's entry gets as `workerData`, beside the service's own. */
export interface RingWorkerData<Own> {
  readonly wakeFd: number;
  readonly own: Own;
}

export class RingWorkerClient {
  private readonly worker: Worker;
  private readonly wakeFd: number;
  private readonly pending = new Map<
    number,
    { resolve: (answer: unknown) => void; reject: (error: unknown) => void }
  >();
  private nextId = 1;
  private error: KeelsonError | undefined;
  private listening: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  private stopped: (() => void) | undefined;
  private stopping = false;
  /** Told once when the thread ends without having been asked to. */
  onFailure: ((error: KeelsonError) => void) | undefined;

  private constructor(entry: URL, own: unknown) {
    this.wakeFd = native?.eventCreate() ?? -1;
    this.worker = new Worker(entry, { workerData: { wakeFd: this.wakeFd, own } });
    this.worker.on("message", (reply: RingWorkerReply) => this.reply(reply));
    this.worker.on("error", (cause) =>
      this.fail(
        new KeelsonError("INTERNAL", `The store's thread ended: ${(cause as Error).message}.`, {
          cause,
        }),
      ),
    );
    this.worker.on("exit", () => {
      this.fail(new KeelsonError("UNAVAILABLE", "The store's thread has ended."));
      this.stopped?.();
    });
  }

  /** Resolves once the thread listens on the ring socket; rejects with why it can't. */
  static async start<Own>(entry: URL, own: Own): Promise<RingWorkerClient> {
    const client = new RingWorkerClient(entry, own);
    await new Promise<void>((resolve, reject) => {
      client.listening = { resolve, reject };
    });
    client.listening = undefined;
    return client;
  }

  /** What the executor answers to a control message. */
  call(message: unknown): Promise<unknown> {
    if (this.error !== undefined) return Promise.reject(this.error);
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.post({ kind: "control", id, message });
    });
  }

  /** Lets the executor shut down and ends the thread. */
  async stop(): Promise<void> {
    this.stopping = true;
    if (this.error === undefined) {
      const stopped = new Promise<void>((resolve) => {
        this.stopped = resolve;
      });
      this.post({ kind: "stop" });
      await stopped;
    }
    await this.worker.terminate();
  }

  private post(message: RingWorkerMessage): void {
    this.worker.postMessage(message);
    if (this.wakeFd >= 0) native!.eventSignal(this.wakeFd);
  }

  private reply(reply: RingWorkerReply): void {
    if (reply.kind === "listening") this.listening?.resolve();
    else if (reply.kind === "stopped") this.stopped?.();
    else if (reply.kind === "answer") {
      const call = this.pending.get(reply.id);
      this.pending.delete(reply.id);
      call?.resolve(reply.answer);
    } else {
      const { code, message, remedy, object } = reply;
      this.fail(
        new KeelsonError(code, message, {
          ...(remedy === undefined ? {} : { remedy }),
          ...(object === undefined ? {} : { object }),
        }),
      );
    }
  }

  private fail(error: KeelsonError): void {
    if (this.error !== undefined) return;
    this.error = error;
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
    this.listening?.reject(error);
    if (!this.stopping && this.listening === undefined) this.onFailure?.(error);
  }
}
