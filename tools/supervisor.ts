/**
 * Runs services as child processes the way systemd would: ready when they say so, restarted when
 * they die, stopped in reverse order. Used by `npm run dev`, the lab and the crash tests.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

const root = join(import.meta.dirname, "..");
const restartDelayMs = 100;
const stopTimeoutMs = 10_000;

export interface ServiceSpec {
  /** Folder in services/. */
  readonly name: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** The arguments of a restart, from the addresses first bound: a free port stays the same port. */
  readonly restartArgs?: (addresses: Record<string, string>) => readonly string[];
  /** Replaces `node services/<name>/main.ts`, for instance `["ip", "netns", "exec", "lab"]`. */
  readonly prefix?: readonly string[];
  /** How long it may take to say that it is ready. Default 60 s. */
  readonly readyTimeoutMs?: number;
}

interface Running {
  spec: ServiceSpec;
  child: ChildProcess;
  restarts: number;
}

export interface SupervisorOptions {
  /** Each service's output goes to `<logDirectory>/<name>.log`. */
  readonly logDirectory: string;
  /** Told when a service died by itself and is started again. */
  readonly onRestart?: (name: string, reason: string) => void;
  /** Told when a service could not be started again. */
  readonly onFailure?: (error: unknown) => void;
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #running = new Map<string, Running>();
  #stopping = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    mkdirSync(options.logDirectory, { recursive: true });
  }

  /**
   * Starts a service; resolves with the addresses it bound when it is ready, throws with the end of
   * its log if it doesn't get there.
   */
  async start(spec: ServiceSpec): Promise<Record<string, string>> {
    const child = this.#spawn(spec);
    this.#running.set(spec.name, { spec, child, restarts: 0 });
    const addresses = await this.#ready(spec, child);
    const running = this.#running.get(spec.name);
    if (running !== undefined && spec.restartArgs !== undefined) {
      running.spec = { ...spec, args: spec.restartArgs(addresses) };
    }
    return addresses;
  }

  /** Process ids by service name, as they are now. */
  get pids(): Record<string, number> {
    return Object.fromEntries(
      [...this.#running].map(([name, { child }]) => [name, child.pid ?? 0]),
    );
  }

  /** How often `name` was started again. */
  restarts(name: string): number {
    return this.#running.get(name)?.restarts ?? 0;
  }

  /** SIGTERM to all, last started first; SIGKILL to what is left after 10 s. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const { child } of [...this.#running.values()].reverse()) await endProcess(child);
    this.#running.clear();
  }

  #spawn(spec: ServiceSpec): ChildProcess {
    const log = openSync(this.logPath(spec.name), "a");
    const command = [
      ...(spec.prefix ?? []),
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      join(root, "services", spec.name, "main.ts"),
      ...spec.args,
    ];
    const child = spawn(command[0], command.slice(1), {
      cwd: root,
      stdio: ["ignore", log, log, "ipc"],
      env: { ...process.env, ...spec.env },
    });
    closeSync(log);
    child.once("exit", (code, signal) => this.#exited(spec.name, child, signal ?? `exit ${code}`));
    return child;
  }

  #ready(spec: ServiceSpec, child: ChildProcess): Promise<Record<string, string>> {
    const timeoutMs = spec.readyTimeoutMs ?? 60_000;
    return new Promise((resolve, reject) => {
      const failed = (what: string) => {
        clearTimeout(timer);
        this.#running.delete(spec.name);
        const tail = readFileSync(this.logPath(spec.name), "utf8").split("\n").slice(-6).join("\n");
        reject(
          new KeelsonError("UNAVAILABLE", `${spec.name} ${what}.\n${tail}`.trimEnd(), {
            operation: "start",
            object: spec.name,
          }),
        );
      };
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        failed(`was not ready after ${timeoutMs / 1000} s`);
      }, timeoutMs);
      const onExit = () => failed("did not start");
      child.once("exit", onExit);
      child.once("error", onExit);
      child.once("message", (message) => {
        clearTimeout(timer);
        child.off("exit", onExit);
        child.off("error", onExit);
        resolve((message as { addresses: Record<string, string> }).addresses);
      });
    });
  }

  #exited(name: string, child: ChildProcess, reason: string): void {
    const running = this.#running.get(name);
    if (this.#stopping || running?.child !== child) return;
    this.#options.onRestart?.(name, reason);
    setTimeout(() => {
      if (this.#stopping) return;
      running.restarts++;
      running.child = this.#spawn(running.spec);
      this.#ready(running.spec, running.child).catch((error) => {
        if (!this.#stopping) this.#options.onFailure?.(error);
      });
    }, restartDelayMs);
  }

  logPath(name: string): string {
    return join(this.#options.logDirectory, `${name}.log`);
  }
}

function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
    child.once("exit", () => {
      clearTimeout(timer);
      resolve();
    });
    child.kill("SIGTERM");
  });
}
