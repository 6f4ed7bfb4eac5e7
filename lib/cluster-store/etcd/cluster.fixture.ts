/**
 * A cluster of real etcd processes on loopback, whose members tests kill, freeze and start again.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** Machines that run emulators beside the tests are slow: this bounds a hang, it is no measure. */
const patienceMs = 120_000;

interface Status {
  readonly memberId: string;
  readonly leaderId: string;
  readonly term: number;
}

export class EtcdMember {
  readonly name: string;
  readonly endpoint: string;
  readonly peerUrl: string;
  readonly #directory: string;
  readonly #flags: readonly string[];
  #child: ChildProcess | undefined;

  constructor(name: string, ports: [client: number, peer: number], flags: readonly string[]) {
    this.name = name;
    this.endpoint = `http://127.0.0.1:${ports[0]}`;
    this.peerUrl = `http://127.0.0.1:${ports[1]}`;
    this.#directory = mkdtempSync(join(tmpdir(), `keelson-etcd-${name}-`));
    this.#flags = flags;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  /** Returns before it serves; its data is what an earlier run left. */
  start(initialCluster: string): void {
    const log = openSync(this.#logPath, "a");
    this.#child = spawn(
      "setpriv",
      [
        // It dies with this process, even if that is killed.
        ...["--pdeathsig", "KILL", "etcd"],
        ...["--data-dir", join(this.#directory, "data"), "--name", this.name, "--logger", "zap"],
        ...["--listen-client-urls", this.endpoint, "--advertise-client-urls", this.endpoint],
        ...["--listen-peer-urls", this.peerUrl, "--initial-advertise-peer-urls", this.peerUrl],
        ...["--initial-cluster", initialCluster, ...this.#flags],
      ],
      { stdio: ["ignore", log, log] },
    );
    closeSync(log);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    child.kill("SIGKILL");
    await exit;
  }

  /** Its sockets stay open and nothing answers on them. */
  async freeze(): Promise<void> {
    const child = this.#child;
    if (child === undefined) throw new Error(`etcd ${this.name} isn't running`);
    child.kill("SIGSTOP");
    // On a busy machine it goes on for a while after the signal.
    await until(
      () => `etcd ${this.name} to stop`,
      () => /^State:\s*T/m.test(readFileSync(`/proc/${child.pid}/status`, "utf8")),
    );
  }

  thaw(): void {
    this.#child?.kill("SIGCONT");
  }

  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async post(path: string, body: object): Promise<Record<string, unknown> | undefined> {
    const init = { method: "POST", body: JSON.stringify(body), signal: AbortSignal.timeout(2000) };
    const answer = await fetch(this.endpoint + path, init).catch(() => undefined);
    return answer?.ok ? ((await answer.json()) as Record<string, unknown>) : undefined;
  }

  async status(): Promise<Status | undefined> {
    const answer = (await this.post("/v3/maintenance/status", {})) as
      | { header: { member_id: string }; leader?: string; raftTerm: string }
      | undefined;
    if (answer === undefined) return undefined;
    return {
      memberId: answer.header.member_id,
      leaderId: answer.leader ?? "0",
      term: Number(answer.raftTerm),
    };
  }

  async serves(): Promise<boolean> {
    // A read through the quorum: it answers only where a leader is known.
    return (await this.post("/v3/kv/range", { key: btoa("probe") })) !== undefined;
  }

  get log(): string {
    return readFileSync(this.#logPath, "utf8").slice(-2000);
  }

  get #logPath(): string {
    return join(this.#directory, "log");
  }
}

export class EtcdCluster {
  readonly members: readonly EtcdMember[];
  readonly #initialCluster: string;

  static async start(size: number, flags: readonly string[] = []): Promise<EtcdCluster> {
    const ports = await freePorts(2 * size);
    const members = Array.from(
      { length: size },
      (_, i) => new EtcdMember("abcde"[i], [ports[2 * i], ports[2 * i + 1]], flags),
    );
    const cluster = new EtcdCluster(members);
    try {
      await cluster.mend();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  private constructor(members: readonly EtcdMember[]) {
    this.members = members;
    this.#initialCluster = members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
  }

  get endpoints(): string[] {
    return this.members.map(({ endpoint }) => endpoint);
  }

  /** Every member runs, with the data it had, and serves. */
  async mend(): Promise<void> {
    for (const member of this.members) {
      if (!member.running) member.start(this.#initialCluster);
      member.thaw();
    }
    for (const member of this.members) {
      await until(
        () => `etcd ${member.name} serves:\n${member.log}`,
        () => member.serves(),
      );
    }
  }

  /** Starts one that was killed; returns before it serves. */
  restart(member: EtcdMember): void {
    member.start(this.#initialCluster);
  }

  /** The leader that a majority knows, of a term later than `afterTerm`. */
  async leader(afterTerm = 0): Promise<{ leader: EtcdMember; term: number }> {
    const what = () => `a leader after term ${afterTerm}`;
    return await until(what, async () => {
      const statuses = await Promise.all(this.members.map((member) => member.status()));
      for (const [i, status] of statuses.entries()) {
        if (status === undefined || status.term <= afterTerm) continue;
        const agree = statuses.filter(
          (other) => other?.leaderId === status.memberId && other.term === status.term,
        );
        if (2 * agree.length > this.members.length) {
          return { leader: this.members[i], term: status.term };
        }
      }
      return undefined;
    });
  }

  /** All members but these; what goes on without them. */
  without(...gone: readonly EtcdMember[]): EtcdMember[] {
    return this.members.filter((member) => !gone.includes(member));
  }

  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    for (const member of this.members) member.remove();
  }
}

/** Asks until the answer is truthy. */
export async function until<T>(
  what: () => string,
  ask: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const endAt = performance.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (performance.now() > endAt) throw new Error(`Waited in vain for ${what()}`);
    await delay(20);
  }
}

/**
 * Below the range of outgoing connections: else a client's own connection could take the port of a
 * member that is down.
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    if (await isFree(port)) ports.add(port);
  }
  return [...ports];
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
      .once("error", () => resolve(false))
      .listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
