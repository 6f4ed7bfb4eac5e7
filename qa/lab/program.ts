/** A child process whose output is waited for by line, and which ends with the suite. */
import { type ChildProcess, spawn } from "node:child_process";

export interface ProgramOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Default 30 000. */
  readonly timeoutMs?: number;
  readonly input?: string;
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class Program {
  readonly name: string;
  readonly child: ChildProcess;
  readonly exited: Promise<Outcome>;
  stdout = "";
  stderr = "";
  #watchers = new Set<() => void>();
  #ended = false;

  constructor(command: string, args: readonly string[], options: ProgramOptions = {}) {
    this.name = [command, ...args].join(" ").slice(0, 300);
    this.child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    this.child.stdout!.setEncoding("latin1").on("data", (text: string) => {
      this.stdout += text;
      this.#wake();
    });
    this.child.stderr!.setEncoding("latin1").on("data", (text: string) => {
      this.stderr += text;
      this.#wake();
    });
    if (options.input !== undefined) this.child.stdin!.end(options.input);
    this.exited = new Promise((resolve) => {
      const end = (code: number | null) => {
        this.#ended = true;
        this.#wake();
        resolve({ code, stdout: this.stdout, stderr: this.stderr });
      };
      this.child.once("error", (error) => {
        this.stderr += `${error.message}\n`;
        end(null);
      });
      this.child.once("close", (code) => end(code));
    });
  }

  #wake(): void {
    for (const watcher of this.#watchers) watcher();
  }

  /** Everything written so far, both streams. */
  get output(): string {
    return this.stdout + this.stderr;
  }

  /** Resolves with the match once either stream holds it; throws at exit or after `timeoutMs`. */
  waitFor(pattern: RegExp, timeoutMs = 30_000): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const finish = (act: () => void) => {
        clearTimeout(timer);
        this.#watchers.delete(check);
        act();
      };
      const check = () => {
        const match = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
        if (match !== null) finish(() => resolve(match));
        else if (this.#ended) {
          finish(() => reject(new Error(`${this.name} ended before ${pattern}:\n${this.tail()}`)));
        }
      };
      const timer = setTimeout(
        () =>
          finish(() =>
            reject(
              new Error(`${this.name}: no ${pattern} within ${timeoutMs} ms:\n${this.tail()}`),
            ),
          ),
        timeoutMs,
      );
      this.#watchers.add(check);
      check();
    });
  }

  /** The end of what it wrote, for a failure's message. */
  tail(): string {
    return this.output.slice(-3000);
  }

  /** Ends it: SIGTERM, then SIGKILL after `graceMs`. */
  async stop(graceMs = 5000): Promise<Outcome> {
    if (!this.#ended) {
      this.child.kill("SIGTERM");
      const timer = setTimeout(() => this.child.kill("SIGKILL"), graceMs);
      await this.exited;
      clearTimeout(timer);
    }
    return this.exited;
  }

  async kill(): Promise<Outcome> {
    if (!this.#ended) this.child.kill("SIGKILL");
    return this.exited;
  }
}

/** Runs to the end; throws with its output unless it exits 0 (or `allowFailure`). */
export async function runProgram(
  command: string,
  args: readonly string[],
  options: ProgramOptions & { readonly allowFailure?: boolean } = {},
): Promise<Outcome> {
  const program = new Program(command, args, options);
  const timeoutMs = options.timeoutMs ?? 30_000;
  const timer = setTimeout(() => {
    program.stderr += `\n(killed after ${timeoutMs} ms)\n`;
    program.child.kill("SIGKILL");
  }, timeoutMs);
  const outcome = await program.exited;
  clearTimeout(timer);
  if (outcome.code !== 0 && options.allowFailure !== true) {
    throw new Error(`${program.name}: exit ${outcome.code}\n${program.tail()}`);
  }
  return outcome;
}
