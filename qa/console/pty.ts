/**
 * A serial line with a terminal at its end: a pseudo-terminal (util-linux's `script` makes it) whose
 * bytes a real terminal emulator interprets, and whose answers it gives back.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import xterm from "@xterm/headless";
import { KeelsonError } from "#lib/model/errors.ts";

export class PtyLine {
  readonly path: string;
  readonly terminal: xterm.Terminal;
  /** All bytes since the start. */
  received = "";
  readonly #script: ChildProcess;
  readonly #ended: Promise<unknown>;

  private constructor(script: ChildProcess, path: string, size: { rows: number; cols: number }) {
    this.#script = script;
    this.path = path;
    this.terminal = new xterm.Terminal({ ...size, allowProposedApi: true, scrollback: 200 });
    script.stdout!.setEncoding("latin1").on("data", (text: string) => {
      this.received += text;
      this.terminal.write(text);
    });
    this.terminal.onData((text) => this.type(text));
    script.stdin!.on("error", () => {});
    this.#ended = new Promise((resolve) => script.once("close", resolve));
  }

  static async open(size = { rows: 24, cols: 80 }): Promise<PtyLine> {
    const folder = mkdtempSync(join(tmpdir(), "keelson-pty-"));
    const file = join(folder, "tty");
    const command = `stty raw -echo; tty > ${file}.new; mv ${file}.new ${file}; exec sleep 3600`;
    const script = spawn("script", ["-qfc", command, "/dev/null"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    for (let tries = 0; !existsSync(file); tries++) {
      if (tries > 200) throw new KeelsonError("TIMEOUT", "script made no pseudo-terminal.");
      await sleep(25);
    }
    const path = readFileSync(file, "utf8").trim();
    rmSync(folder, { recursive: true });
    return new PtyLine(script, path, size);
  }

  type(text: string): void {
    this.#script.stdin!.write(Buffer.from(text, "latin1"));
  }

  get lines(): string[] {
    const { active } = this.terminal.buffer;
    return Array.from({ length: this.terminal.rows }, (_, row) =>
      (active.getLine(active.baseY + row)?.translateToString(true) ?? "").trimEnd(),
    );
  }

  get text(): string {
    return this.lines.join("\n");
  }

  /** Waits until the terminal shows `pattern`; TIMEOUT with what it shows instead. */
  async see(pattern: RegExp, timeoutMs = 90_000): Promise<RegExpExecArray> {
    const until = performance.now() + timeoutMs;
    for (;;) {
      const found = pattern.exec(this.text);
      if (found !== null) return found;
      if (performance.now() > until) {
        throw new KeelsonError("TIMEOUT", `The terminal doesn't show ${pattern}:\n${this.text}`);
      }
      await sleep(30);
    }
  }

  /** Hangs up, as when the cable is pulled. */
  async close(): Promise<void> {
    this.#script.kill("SIGKILL");
    await this.#ended;
    this.terminal.dispose();
  }
}
