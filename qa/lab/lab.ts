/**
 * The lab: network namespaces joined by a bridge, services of this tree inside them, and real
 * clients beside them. Nothing touches the machine's own network. Needs root.
 *
 * One segment is a namespace that holds a bridge; each host is a namespace of its own with `eth0`
 * on that bridge; QEMU guests run in the segment's namespace on a tap. Names start with
 * `klab-<pid>-`, so that several labs can run at once and what a killed one left is recognisable.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, watch } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { type Outcome, Program, type ProgramOptions, runProgram } from "./program.ts";

export const root = join(import.meta.dirname, "../..");

export interface TestResult {
  readonly suite: string;
  readonly name: string;
  readonly ok: boolean;
  readonly ms: number;
  readonly error?: string;
}

export class Lab {
  readonly suite: string;
  readonly results: TestResult[] = [];
  /** Scratch folder of the suite, gone at its end unless `keep`. */
  readonly folder: string;
  #report: (result: TestResult) => void;
  #filter: string | undefined;
  #cleanups: (() => Promise<unknown> | unknown)[] = [];
  #counter = 0;
  #keep: boolean;

  constructor(
    suite: string,
    options: {
      readonly report: (result: TestResult) => void;
      /** Only tests whose name contains this run. */
      readonly filter?: string | undefined;
      readonly keep?: boolean;
    },
  ) {
    this.suite = suite;
    this.#report = options.report;
    this.#filter = options.filter;
    this.#keep = options.keep === true;
    this.folder = mkdtempSync(join(tmpdir(), `klab-${suite}-`));
  }

  /** One thing shown. `run` throws on failure; the suite goes on with its next test. */
  async test(name: string, run: () => Promise<void>): Promise<boolean> {
    if (this.#filter !== undefined && !name.includes(this.#filter)) return true;
    const start = performance.now();
    const finish = (error?: string) => {
      const ms = Math.round(performance.now() - start);
      const result = { suite: this.suite, name, ok: error === undefined, ms };
      const full = error === undefined ? result : { ...result, error };
      this.results.push(full);
      this.#report(full);
      return full.ok;
    };
    try {
      await run();
      return finish();
    } catch (error) {
      return finish(error instanceof Error ? error.message : String(error));
    }
  }

  /** Runs at the end of the suite, the latest first. */
  onEnd(cleanup: () => Promise<unknown> | unknown): void {
    this.#cleanups.push(cleanup);
  }

  async end(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).reverse()) {
      try {
        await cleanup();
      } catch (error) {
        console.error(`lab: clean-up of ${this.suite}: ${(error as Error).message}`);
      }
    }
    if (this.#keep) console.error(`lab: kept ${this.folder}`);
    else rmSync(this.folder, { recursive: true, force: true });
  }

  /** A new empty folder in the suite's. */
  directory(name: string): string {
    const path = join(this.folder, `${name}-${this.#counter++}`);
    mkdirSync(path, { recursive: true });
    return path;
  }

  async namespace(label: string): Promise<Namespace> {
    const name = `klab-${process.pid}-${this.#counter++}-${label}`;
    await runProgram("ip", ["netns", "add", name]);
    this.onEnd(() => runProgram("ip", ["netns", "del", name], { allowFailure: true }));
    await runProgram("ip", ["-n", name, "link", "set", "lo", "up"]);
    return new Namespace(this, name);
  }

  /** An Ethernet segment. */
  async segment(): Promise<Segment> {
    const space = await this.namespace("switch");
    await space.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0");
    await space.ip("link", "set", "br0", "up");
    return new Segment(this, space);
  }

  /** A program on the machine's own network (loopback only, please); ends with the suite. */
  spawn(command: string, args: readonly string[], options: ProgramOptions = {}): Program {
    const program = new Program(command, args, options);
    this.onEnd(() => program.stop());
    return program;
  }

  /**
   * Starts `services/<name>/main.ts` with fresh `--state` and `--run` folders and resolves once
   * its `api.sock` answers. `where` undefined: the machine's own network.
   */
  async service(
    where: Namespace | undefined,
    name: string,
    args: readonly string[],
    options: ProgramOptions & {
      readonly state?: string;
      readonly run?: string;
      /** Default `api.sock`. */
      readonly socket?: string;
    } = {},
  ): Promise<Service> {
    const state = options.state ?? this.directory(`${name}-state`);
    const run = options.run ?? this.directory(`${name}-run`);
    const socket = join(run, options.socket ?? "api.sock");
    const main = join(root, "services", name, "main.ts");
    const flags = ["--disable-warning=ExperimentalWarning"];
    const command = [...flags, main, "--state", state, "--run", run, ...args];
    const program = (where ?? this).spawn(process.execPath, command, options);
    await Promise.race([
      waitForSocket(socket, options.timeoutMs ?? 30_000),
      program.exited.then(() => {
        throw new Error(`${name} ended at start:\n${program.tail()}`);
      }),
    ]);
    return { name, program, state, run, socket };
  }
}

export interface Service {
  readonly name: string;
  readonly program: Program;
  readonly state: string;
  readonly run: string;
  /** Its control socket. */
  readonly socket: string;
}

export class Namespace {
  readonly lab: Lab;
  readonly name: string;

  constructor(lab: Lab, name: string) {
    this.lab = lab;
    this.name = name;
  }

  /** `ip -n <this> ...` */
  ip(...args: string[]): Promise<Outcome> {
    return runProgram("ip", ["-n", this.name, ...args]);
  }

  /** Runs to the end inside. */
  run(
    command: string,
    args: readonly string[],
    options: ProgramOptions & { readonly allowFailure?: boolean } = {},
  ): Promise<Outcome> {
    return runProgram("ip", ["netns", "exec", this.name, command, ...args], options);
  }

  /** Starts a program inside; it ends with the suite. */
  spawn(command: string, args: readonly string[], options: ProgramOptions = {}): Program {
    return this.lab.spawn("ip", ["netns", "exec", this.name, command, ...args], options);
  }
}

export class Segment {
  readonly lab: Lab;
  /** Holds the bridge `br0`; QEMU runs here. */
  readonly space: Namespace;
  #counter = 0;

  constructor(lab: Lab, space: Namespace) {
    this.lab = lab;
    this.space = space;
  }

  /** A namespace with `eth0` on this segment; `address` such as `10.77.0.1/24` is optional. */
  async host(label: string, address?: string, mac?: string): Promise<Namespace> {
    const host = await this.lab.namespace(label);
    await this.attach(host, "eth0", mac);
    if (address !== undefined) await host.ip("addr", "add", address, "dev", "eth0");
    return host;
  }

  /** Another interface of `host` on this segment. */
  async attach(host: Namespace, device: string, mac?: string): Promise<void> {
    const port = `port${this.#counter++}`;
    const address = mac === undefined ? [] : ["address", mac];
    await this.space.ip(
      ...["link", "add", port, "type", "veth"],
      ...["peer", "name", device, ...address, "netns", host.name],
    );
    await this.space.ip("link", "set", port, "master", "br0", "up");
    await host.ip("link", "set", device, "up");
  }

  /** A tap on the bridge, for QEMU's `-netdev tap,ifname=`. */
  async tap(): Promise<string> {
    const name = `tap${this.#counter++}`;
    await this.space.ip("tuntap", "add", name, "mode", "tap");
    await this.space.ip("link", "set", name, "master", "br0", "up");
    return name;
  }
}

/** Resolves once a unix socket accepts; watches its folder instead of asking again and again. */
export async function waitForSocket(path: string, timeoutMs: number): Promise<void> {
  const accepts = () =>
    new Promise<boolean>((resolve) => {
      if (!existsSync(path)) return resolve(false);
      const probe = connect(path);
      probe.once("connect", () => {
        probe.destroy();
        resolve(true);
      });
      probe.once("error", () => resolve(false));
    });
  mkdirSync(dirname(path), { recursive: true });
  await new Promise<void>((resolve, reject) => {
    const finish = (act: () => void) => {
      clearTimeout(timer);
      watcher.close();
      act();
    };
    const check = async () => {
      if (await accepts()) finish(resolve);
    };
    const watcher = watch(dirname(path), (_, file) => {
      if (file === basename(path)) void check();
    });
    const timer = setTimeout(
      () => finish(() => reject(new Error(`${path} did not answer within ${timeoutMs} ms`))),
      timeoutMs,
    );
    void check();
  });
}
