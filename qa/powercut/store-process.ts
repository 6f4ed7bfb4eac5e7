/** chunk-store as a child process on a given device. */
import { type ChildProcess, spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import { endProcess } from "#qa/processes.ts";

const main = join(import.meta.dirname, "../../services/chunk-store/main.ts");

export class StoreProcess {
  readonly run: string;
  private readonly child: ChildProcess;
  private log = "";

  private constructor(run: string, child: ChildProcess) {
    this.run = run;
    this.child = child;
    child.stderr!.on("data", (text) => {
      this.log += text;
    });
  }

  /** Started, and answering; UNAVAILABLE with its log if it ended instead. */
  static async start(
    directory: string,
    device: string,
    environment: NodeJS.ProcessEnv = {},
    flags: readonly string[] = [],
  ): Promise<StoreProcess> {
    const run = join(directory, "run");
    rmSync(run, { recursive: true, force: true });
    const options = ["--state", join(directory, "state"), "--run", run, "--device", device];
    const child = spawn(process.execPath, [main, ...options, ...flags], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, ...environment },
    });
    const store = new StoreProcess(run, child);
    for (let waitedMs = 0; ; waitedMs += 20) {
      if (child.exitCode !== null || waitedMs > 20_000) {
        child.kill("SIGKILL");
        throw new KeelsonError("UNAVAILABLE", `chunk-store did not start: ${store.log.trim()}`);
      }
      const info = await store.call("GET", "/v1/store").catch(() => undefined);
      if (info !== undefined) return store;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  get ringPath(): string {
    return join(this.run, "ring.sock");
  }

  async call<Answer>(method: string, path: string, body?: object): Promise<Answer> {
    const answer = await unixFetch(join(this.run, "api.sock"))(`http://unix${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    if (!answer.ok) throw new KeelsonError("UNAVAILABLE", await answer.text(), { object: path });
    return (answer.status === 204 ? undefined : await answer.json()) as Answer;
  }

  abandon(): void {
    this.child.kill("SIGKILL");
  }

  /** kill -9, and waits until it is gone. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await endProcess(this.child, signal);
  }
}
