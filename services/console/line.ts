/**
 * One terminal line (a VT, a serial port) as a view: it shows the last content it was given and
 * gives keys. Nothing that a person typed lives here, so a line may hang up and come back.
 *
 * Writes never block: a port that takes nothing (flow control, nobody there) holds back at most one
 * frame, and when it takes bytes again it gets the difference to what is true by then.
 */
import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { ReadStream } from "node:tty";
import { type Grid, printable, type Size } from "#lib/terminal/grid.ts";
import { type Key, KeyParser } from "#lib/terminal/keys.ts";
import { askSize, paint, resetTerminal } from "#lib/terminal/paint.ts";
import { wrapLine } from "#lib/terminal/wrap.ts";
import { fitGrid, screenSize } from "./form-view.ts";

export interface NumberedLine {
  readonly number: number;
  readonly text: string;
}

export type Content =
  | { readonly kind: "page"; readonly grid: Grid }
  /** Plain lines below each other, as a log: for what goes on without a person. */
  | { readonly kind: "lines"; readonly lines: readonly NumberedLine[] };

export interface LineOptions {
  readonly path: string;
  readonly onKey: (key: Key) => void;
}

/** An ESC that nothing follows is the key; a slow line needs a moment for a sequence's rest. */
const escapeMs = 400;
const reopenMs = 2_000;
/** Kernel messages and broken bytes go away by themselves. */
const repaintMs = 60_000;
/** After a pause, whoever presses a key may have just attached to the line: all of it is sent. */
const pauseMs = 5_000;
const retryLeastMs = 50;
const retryMostMs = 2_000;
const linesKept = 20;
/** Below and above this a report of the size is noise on the line. */
const smallest = { rows: 2, columns: 8 };
const largest = { rows: 500, columns: 1000 };

export class Line {
  readonly path: string;
  readonly #onKey: (key: Key) => void;
  readonly #parser = new KeyParser();
  #input: ReadStream | undefined;
  #output: number | undefined;
  #size: Size = screenSize;
  #content: Content | undefined;
  /** What the terminal shows when all of `#unsent` has arrived; undefined: unknown. */
  #shown: Grid | undefined;
  #lastLine = -1;
  #unsent: Buffer = Buffer.alloc(0);
  #stale = false;
  #retryMs = retryLeastMs;
  #lastKeyMs = 0;
  #released = false;
  #closed = false;
  #escapeTimer: NodeJS.Timeout | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #reopenTimer: NodeJS.Timeout | undefined;
  readonly #repaintTimer: NodeJS.Timeout;

  constructor({ path, onKey }: LineOptions) {
    this.path = path;
    this.#onKey = onKey;
    this.#repaintTimer = setInterval(() => {
      if (this.#content?.kind !== "page") return;
      this.#send(askSize);
      this.#shown = undefined;
      this.#update();
    }, repaintMs);
    this.#open();
  }

  get isOpen(): boolean {
    return this.#output !== undefined;
  }

  show(content: Content): void {
    const turned = this.#content?.kind !== content.kind;
    this.#content = content;
    if (turned) this.#startOver();
    else this.#update();
  }

  /** Gives the line to another program until `take`. */
  release(): void {
    this.#released = true;
    this.#send(resetTerminal);
    this.#hangUp();
  }

  take(): void {
    this.#released = false;
    this.#open();
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#repaintTimer);
    if (this.#content?.kind === "page") this.#send(resetTerminal);
    this.#hangUp();
  }

  #open(): void {
    if (this.#closed || this.#released || this.#output !== undefined) return;
    try {
      if (/ttyS\d+$/.test(this.path)) setSerial(this.path);
      const flags = constants.O_NOCTTY | constants.O_NONBLOCK;
      this.#output = openSync(this.path, constants.O_WRONLY | flags);
      const input = new ReadStream(openSync(this.path, constants.O_RDONLY | flags));
      input.setRawMode(true);
      input.on("data", (bytes: Buffer) => this.#read(bytes));
      for (const event of ["error", "end", "close"]) input.on(event, () => this.#lost(input));
      this.#input = input;
      this.#startOver();
    } catch {
      this.#hangUp();
      this.#reopenLater();
    }
  }

  #lost(input: ReadStream): void {
    if (this.#input !== input) return;
    this.#hangUp();
    this.#reopenLater();
  }

  #reopenLater(): void {
    clearTimeout(this.#reopenTimer);
    if (this.#closed || this.#released) return;
    this.#reopenTimer = setTimeout(() => this.#open(), reopenMs);
  }

  #hangUp(): void {
    for (const timer of [this.#escapeTimer, this.#retryTimer, this.#reopenTimer]) {
      clearTimeout(timer);
    }
    this.#retryTimer = undefined;
    const input = this.#input;
    this.#input = undefined;
    if (input !== undefined) {
      try {
        input.setRawMode(false);
      } catch {
        // The terminal is gone.
      }
      input.destroy();
    }
    if (this.#output !== undefined) closeSync(this.#output);
    this.#output = undefined;
    this.#unsent = Buffer.alloc(0);
    this.#shown = undefined;
  }

  #read(bytes: Buffer): void {
    clearTimeout(this.#escapeTimer);
    this.#take(this.#parser.push(bytes));
    if (this.#parser.pending) {
      this.#escapeTimer = setTimeout(() => this.#take(this.#parser.idle()), escapeMs);
    }
  }

  #take(keys: readonly Key[]): void {
    for (const key of keys) {
      if (key.kind === "size") {
        this.#resize(key);
        continue;
      }
      const nowMs = performance.now();
      const fresh = nowMs - this.#lastKeyMs > pauseMs;
      this.#lastKeyMs = nowMs;
      if (key.kind === "key" && key.name === "redraw") {
        this.#startOver();
        continue;
      }
      if (fresh && this.#content?.kind === "page") {
        this.#shown = undefined;
        this.#update();
      }
      this.#onKey(key);
    }
  }

  #resize({ rows, columns }: Size): void {
    if (rows === this.#size.rows && columns === this.#size.columns) return;
    if (rows < smallest.rows || columns < smallest.columns) return;
    if (rows > largest.rows || columns > largest.columns) return;
    this.#size = { rows, columns };
    if (this.#content?.kind !== "page") return;
    this.#shown = undefined;
    this.#send(resetTerminal);
    this.#update();
  }

  /** As for a terminal that nothing is known of. */
  #startOver(): void {
    this.#shown = undefined;
    this.#lastLine = -1;
    if (this.#content === undefined) return;
    this.#send(`${resetTerminal}${askSize}`);
    this.#update();
  }

  #update(): void {
    const content = this.#content;
    if (this.#output === undefined || content === undefined) return;
    if (this.#unsent.length > 0) {
      this.#stale = true;
      return;
    }
    this.#stale = false;
    if (content.kind === "page") {
      const grid = fitGrid(content.grid, this.#size);
      this.#send(paint(this.#shown, grid));
      this.#shown = grid;
      return;
    }
    const fresh = content.lines.filter(({ number }) => number > this.#lastLine);
    const told = this.#lastLine < 0 ? fresh.slice(-linesKept) : fresh;
    if (told.length === 0) return;
    this.#lastLine = told[told.length - 1].number;
    const width = Math.max(20, this.#size.columns) - 1;
    const text = told.flatMap((line) => wrapLine(printable(line.text), width)).join("\r\n");
    this.#send(`${text}\r\n`);
  }

  #send(text: string): void {
    if (this.#output === undefined || text === "") return;
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(text, "latin1")]);
    if (this.#retryTimer === undefined) this.#flush();
  }

  #flush(): void {
    while (this.#unsent.length > 0 && this.#output !== undefined) {
      let written = 0;
      try {
        written = writeSync(this.#output, this.#unsent);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EAGAIN") {
          // EIO: hung up. The reading side notices as well, but perhaps later.
          this.#hangUp();
          this.#reopenLater();
          return;
        }
      }
      this.#unsent = this.#unsent.subarray(written);
      if (written > 0) {
        this.#retryMs = retryLeastMs;
        continue;
      }
      this.#retryTimer = setTimeout(() => {
        this.#retryTimer = undefined;
        this.#flush();
      }, this.#retryMs);
      this.#retryMs = Math.min(retryMostMs, this.#retryMs * 2);
      return;
    }
    if (this.#stale) this.#update();
  }
}

/** 115200 8N1 without handshake, whatever was set before; no carrier needed. */
function setSerial(path: string): void {
  try {
    execFileSync(
      "stty",
      ["-F", path, "115200", "cs8", "-parenb", "-cstopb", "-crtscts", "-ixon", "clocal", "cread"],
      { stdio: "ignore", timeout: 5_000 },
    );
  } catch {
    // A port that can't be set is used as it is.
  }
}
