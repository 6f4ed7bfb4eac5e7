/** Questions to a person at a terminal, and a line that moves. */
import { createInterface } from "node:readline/promises";
import { KeelsonError } from "#lib/model/errors.ts";

export function isInteractive(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}

/** Asks on stderr, so that stdout stays clean. */
export async function ask(question: string): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await lines.question(question);
  } finally {
    lines.close();
  }
}

/** Nothing of it is shown. CANCELLED at Ctrl-C or Ctrl-D. */
export function askSecret(question: string): Promise<string> {
  process.stderr.write(question);
  const { stdin } = process;
  stdin.setRawMode(true);
  stdin.resume();
  return new Promise((resolve, reject) => {
    let bytes = Buffer.alloc(0);
    const end = (settle: () => void) => {
      stdin.setRawMode(false);
      stdin.pause();
      stdin.off("data", take);
      process.stderr.write("\n");
      settle();
    };
    const take = (part: Buffer) => {
      for (const byte of part) {
        if (byte === 13 || byte === 10) return end(() => resolve(bytes.toString("utf8")));
        if (byte === 3 || byte === 4) {
          return end(() => reject(new KeelsonError("CANCELLED", "Cancelled.")));
        }
        if (byte === 127 || byte === 8) bytes = bytes.subarray(0, -1);
        else bytes = Buffer.concat([bytes, Buffer.from([byte])]);
      }
    };
    stdin.on("data", take);
  });
}

/** The first line of stdin, for passwords from scripts. */
export async function readStandardInput(): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of process.stdin) parts.push(part as Buffer);
  return Buffer.concat(parts).toString("utf8").split(/\r?\n/)[0];
}

/** One line on stderr that is written over; without a terminal, a line each 25 percent. */
export class ProgressLine {
  readonly #interactive = process.stderr.isTTY === true;
  #lastStep = "";
  #shownAt = 0;

  show(label: string, percent: number | null): void {
    const shown = percent === null ? "" : ` ${String(Math.floor(percent)).padStart(3)} %`;
    if (this.#interactive) {
      const now = performance.now();
      if (now - this.#shownAt < 80 && percent !== 100) return;
      this.#shownAt = now;
      const barWidth = Math.max(10, Math.min(40, (process.stderr.columns ?? 80) - 40));
      const filled = Math.round(((percent ?? 0) / 100) * barWidth);
      const bar = `[${"#".repeat(filled)}${"-".repeat(barWidth - filled)}]`;
      process.stderr.write(`\r\u001b[K${label.padEnd(12)} ${percent === null ? "" : bar}${shown}`);
      return;
    }
    const step = `${label} ${percent === null ? "" : Math.floor(percent / 25) * 25}`;
    if (step === this.#lastStep) return;
    this.#lastStep = step;
    process.stderr.write(`${label}${shown}\n`);
  }

  end(): void {
    if (this.#interactive) process.stderr.write("\r\u001b[K");
  }
}
