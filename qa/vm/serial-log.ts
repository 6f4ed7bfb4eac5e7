/**
 * What a machine says on its serial port: waited for by pattern, failed by pattern, and kept in a
 * file with the seconds since the start before each line. A terminal of 80x24 is attached to it, as
 * a person would have one: patterns are found in what was said and in what the terminal shows.
 */
import { createWriteStream, type WriteStream } from "node:fs";
import { StringDecoder } from "node:string_decoder";
import xterm from "@xterm/headless";
import { KeelsonError } from "#lib/model/errors.ts";

const esc = String.fromCharCode(27);
/** Terminal escapes, carriage returns, NULs. */
const escapes = new RegExp(
  `${esc}(?:\\[[0-?]*[ -/]*[@-~]|\\][^\\u0007${esc}]*(?:\\u0007|${esc}\\\\)|[()][A-Z0-9]|[=>78cDEHMN])|[\\r\\u0000]`,
  "g",
);
const openEscape = new RegExp(`${esc}[^${esc}]{0,40}$`);

interface Waiter {
  readonly pattern: RegExp;
  readonly settle: (found: RegExpExecArray | KeelsonError) => void;
}

export interface WaitOptions {
  /** Ends the wait with an error when it appears after the last match. */
  readonly fail?: readonly RegExp[];
  readonly what?: string;
}

/** A page of the console has its title in the first row, on a larger terminal some rows below. */
function isPage(screen: readonly string[]): boolean {
  return screen.slice(0, 8).some((row) => /^ *Keelson \S+ {3,}\S/.test(row));
}

export class SerialLog {
  readonly path: string;
  readonly #file: WriteStream;
  readonly #started = Date.now();
  readonly #decoder = new StringDecoder("utf8");
  #raw = "";
  #text = "";
  #from = 0;
  #line = "";
  #ended: string | undefined;
  readonly #waiters = new Set<Waiter & { fail: readonly RegExp[] }>();
  readonly #listeners = new Set<(line: string) => void>();

  readonly #terminal = new xterm.Terminal({ rows: 24, cols: 80, allowProposedApi: true });

  /** `answer` types what the terminal answers when it is asked (its size). */
  constructor(path: string, answer: (text: string) => void = () => {}) {
    this.path = path;
    this.#file = createWriteStream(path);
    this.#terminal.onData(answer);
  }

  /** The rows that the terminal shows, without blanks at their ends. */
  get screen(): string[] {
    const { active } = this.#terminal.buffer;
    return Array.from({ length: this.#terminal.rows }, (_, row) =>
      (active.getLine(active.baseY + row)?.translateToString(true) ?? "").trimEnd(),
    );
  }

  /** As when somebody drags the window; the terminal tells its size only when it is asked. */
  resize(rows: number, columns: number): void {
    this.#terminal.resize(columns, rows);
  }

  /** As when the cable is pulled and another terminal program is started on it: it shows nothing. */
  attachAnew(): void {
    this.#terminal.reset();
  }

  /** True while the terminal shows a page of the console. */
  get showsPage(): boolean {
    return isPage(this.screen);
  }

  /** What was said until now is not waited for any more. */
  skip(): void {
    this.#from = this.#text.length;
  }

  /** All of it, escapes removed. */
  get text(): string {
    return this.#text;
  }

  onLine(listener: (line: string) => void): void {
    this.#listeners.add(listener);
  }

  push(bytes: Buffer): void {
    // An escape sequence may be cut by the read: what may still grow into one waits.
    this.#raw += this.#decoder.write(bytes);
    const cut = openEscape.exec(this.#raw);
    const complete = cut === null || cut[0].replace(escapes, "") !== cut[0];
    const ready = complete ? this.#raw : this.#raw.slice(0, cut.index);
    this.#raw = complete ? "" : this.#raw.slice(cut.index);
    const clean = ready.replaceAll(escapes, "");
    this.#text += clean;
    const lines = (this.#line + clean).split("\n");
    this.#line = lines.pop()!;
    for (const line of lines) this.#keep(line);
    for (const waiter of this.#waiters) this.#check(waiter);
    this.#terminal.write(bytes, () => {
      for (const waiter of this.#waiters) this.#check(waiter);
    });
  }

  /** The machine is gone: waits end with `reason`. */
  end(reason: string): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    if (this.#line !== "") this.#keep(this.#line);
    this.#file.end();
    for (const waiter of this.#waiters) {
      waiter.settle(new KeelsonError("UNAVAILABLE", `${reason} ${this.tail()}`));
    }
  }

  /**
   * The first match of `pattern` after the previous wait's match, or on the screen now. TIMEOUT after `timeoutMs`;
   * INTERNAL when a fail pattern comes first; UNAVAILABLE when the machine ends.
   */
  async waitFor(pattern: RegExp, timeoutMs: number, options: WaitOptions = {}) {
    const what = options.what ?? String(pattern);
    let timer: NodeJS.Timeout | undefined;
    let entry: (Waiter & { fail: readonly RegExp[] }) | undefined;
    try {
      const found = await new Promise<RegExpExecArray | KeelsonError>((settle) => {
        entry = { pattern, fail: options.fail ?? [], settle };
        this.#waiters.add(entry);
        timer = setTimeout(
          () =>
            settle(
              new KeelsonError(
                "TIMEOUT",
                `No ${what} on the serial port within ${Math.round(timeoutMs / 1000)} s. ${this.tail()}`,
              ),
            ),
          timeoutMs,
        );
        this.#check(entry);
        if (this.#ended !== undefined && this.#waiters.has(entry)) {
          settle(new KeelsonError("UNAVAILABLE", `${this.#ended} ${this.tail()}`));
        }
      });
      if (found instanceof KeelsonError) throw found;
      return found;
    } finally {
      clearTimeout(timer);
      if (entry !== undefined) this.#waiters.delete(entry);
    }
  }

  /** The last lines, for an error message. */
  tail(count = 12): string {
    const lines = this.#text.trimEnd().split("\n").slice(-count);
    return `The last lines (all of them in ${this.path}):\n${lines.map((line) => `    | ${line}`).join("\n")}`;
  }

  #check(waiter: Waiter & { fail: readonly RegExp[] }): void {
    const rest = this.#text.slice(this.#from);
    const found = waiter.pattern.exec(rest);
    if (found !== null) {
      this.#from += found.index + found[0].length;
      this.#waiters.delete(waiter);
      waiter.settle(found);
      return;
    }
    const screen = this.screen;
    // The console draws pages, of which the log has only differences.
    const onScreen = isPage(screen) ? waiter.pattern.exec(screen.join("\n")) : null;
    if (onScreen !== null) {
      this.#from = this.#text.length;
      this.#waiters.delete(waiter);
      waiter.settle(onScreen);
      return;
    }
    for (const pattern of waiter.fail) {
      const bad = pattern.exec(rest);
      if (bad !== null) {
        waiter.settle(new KeelsonError("INTERNAL", `The machine said: ${bad[0]}. ${this.tail()}`));
        return;
      }
    }
  }

  #keep(line: string): void {
    const seconds = ((Date.now() - this.#started) / 1000).toFixed(1).padStart(7);
    this.#file.write(`${seconds} ${line}\n`);
    for (const listener of this.#listeners) listener(line);
  }
}
