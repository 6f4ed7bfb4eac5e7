/** QEMU's machine protocol (QMP) over a unix socket: one command at a time, answers in order. */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";

interface Answer {
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly QMP?: unknown;
}

export class Monitor {
  readonly #socket: Socket;
  readonly #waiting: ((answer: Answer | undefined) => void)[] = [];
  #rest = "";

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#read(text));
    socket.on("error", () => {});
    socket.on("close", () => {
      for (const settle of this.#waiting.splice(0)) settle(undefined);
    });
  }

  /** Connects as soon as QEMU listens; TIMEOUT after `timeoutMs`. */
  static async open(path: string, timeoutMs = 10_000): Promise<Monitor> {
    const until = Date.now() + timeoutMs;
    for (;;) {
      const socket = await new Promise<Socket | undefined>((done) => {
        const attempt = connect(path);
        attempt.once("connect", () => done(attempt));
        attempt.once("error", () => done(undefined));
      });
      if (socket !== undefined) {
        const monitor = new Monitor(socket);
        await monitor.command("qmp_capabilities");
        return monitor;
      }
      if (Date.now() > until) {
        throw new KeelsonError("TIMEOUT", `QEMU does not answer on ${path}.`);
      }
      await sleep(50);
    }
  }

  /** Result of a command; INTERNAL with QEMU's words if it refuses, UNAVAILABLE if it is gone. */
  async command(execute: string, parameters?: object): Promise<unknown> {
    const answer = await new Promise<Answer | undefined>((settle) => {
      if (this.#socket.destroyed) return settle(undefined);
      this.#waiting.push(settle);
      this.#socket.write(`${JSON.stringify({ execute, arguments: parameters })}\n`);
    });
    if (answer === undefined) {
      throw new KeelsonError("UNAVAILABLE", `QEMU ended before it answered ${execute}.`);
    }
    if (answer.error !== undefined) {
      throw new KeelsonError("INTERNAL", `QEMU refused ${execute}: ${answer.error.desc}`);
    }
    return answer.return;
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) {
      const answer = JSON.parse(line) as Answer;
      if (answer.event === undefined && answer.QMP === undefined) this.#waiting.shift()?.(answer);
    }
  }
}
