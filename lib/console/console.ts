/**
 * Lines to the screen and the serial port of a machine, both the same, 80 columns, no colour. A
 * port that takes nothing (a serial line with flow control and nobody there) never blocks: what it
 * doesn't take waits up to a limit, then the oldest is dropped.
 */
import { closeSync, constants, openSync, writeSync } from "node:fs";

export interface Console {
  /** Prints lines; long ones are wrapped. */
  print(...lines: string[]): void;
  close(): void;
}

const columns = 80;
const pendingLimit = 64 * 1024;
const retryMs = 200;

/** Opens the terminals that are there; a missing one is left out. */
export function openConsole(paths: readonly string[]): Console {
  const ports = paths.flatMap((path) => {
    try {
      const flags = constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK;
      return [new Port(openSync(path, flags))];
    } catch {
      return [];
    }
  });
  return {
    print(...lines) {
      const text = lines.flatMap((line) => wrapLine(line, columns - 1)).join("\r\n");
      for (const port of ports) port.write(`${text}\r\n`);
    },
    close() {
      for (const port of ports) port.close();
    },
  };
}

class Port {
  readonly #file: number;
  #pending: Buffer = Buffer.alloc(0);
  #timer: NodeJS.Timeout | undefined;

  constructor(file: number) {
    this.#file = file;
  }

  write(text: string): void {
    this.#pending = Buffer.concat([this.#pending, Buffer.from(text)]);
    if (this.#pending.length > pendingLimit) {
      this.#pending = this.#pending.subarray(this.#pending.length - pendingLimit);
    }
    this.#flush();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flush();
    clearTimeout(this.#timer);
    closeSync(this.#file);
  }

  #flush(): void {
    if (this.#timer !== undefined) return;
    while (this.#pending.length > 0) {
      let written = 0;
      try {
        written = writeSync(this.#file, this.#pending);
      } catch (error) {
        // EIO: a terminal that was hung up; what was meant for it is lost.
        if ((error as NodeJS.ErrnoException).code !== "EAGAIN") this.#pending = Buffer.alloc(0);
      }
      this.#pending = this.#pending.subarray(written);
      if (written > 0 || this.#pending.length === 0) continue;
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#flush();
      }, retryMs);
      return;
    }
  }
}

/** Breaks at spaces so that no line is longer than `width`; continuation lines are indented. */
export function wrapLine(line: string, width: number): string[] {
  if (line.length <= width) return [line];
  const indent = /^ */.exec(line)![0];
  const out: string[] = [];
  let current = indent;
  for (const word of line.trim().split(/ +(?! )/)) {
    const joined = current.trim() === "" ? `${current}${word}` : `${current} ${word}`;
    if (joined.length <= width || current.trim() === "") {
      current = joined;
    } else {
      out.push(current);
      current = `${indent}  ${word}`;
    }
    while (current.length > width) {
      out.push(current.slice(0, width));
      current = `${indent}  ${current.slice(width)}`;
    }
  }
  return [...out, current];
}
