/** A PostgreSQL server on a mounted disk, as the user postgres. */
import { type ChildProcess, type StdioOptions, spawn, spawnSync } from "node:child_process";
import { chownSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { KeelsonError } from "#lib/model/errors.ts";
import { endProcess, hasEnded, killWithChildren } from "#qa/processes.ts";
import { type Identity, must } from "./must.ts";

const versions = "/usr/lib/postgresql";
const startMs = 120_000;

/** The newest that is installed. */
export function programFolder(): string {
  const [newest] = readdirSync(versions).sort((a, b) => Number(b) - Number(a));
  return join(versions, newest, "bin");
}

export function postgresUser(): Identity {
  const number = (option: string) => {
    const { status, stdout } = spawnSync("id", [option, "postgres"], { encoding: "utf8" });
    if (status !== 0) throw new KeelsonError("NOT_FOUND", "There is no user postgres.");
    return Number(stdout);
  };
  return { uid: number("-u"), gid: number("-g") };
}

/** Small, so that its checkpoints come often; what makes it durable is as it is by default. */
export const settings = [
  ...["listen_addresses=", "shared_buffers=32MB", "max_wal_size=64MB", "checkpoint_timeout=30s"],
  ...["log_min_messages=warning", "autovacuum_naptime=5s"],
].flatMap((setting) => ["-c", setting]);

/** pgbench adds what it adds to an account to a branch, a teller and its history too. */
export const checkOfSums = [
  ["accounts", "abalance"],
  ["branches", "bbalance"],
  ["tellers", "tbalance"],
  ["history", "delta"],
]
  .map(([table, column]) => `select coalesce(sum(${column}), 0) from pgbench_${table}`)
  .join(" union all ");

/** Of what `checkOfSums` answers. */
export function sumsDiffer(answer: string): boolean {
  return new Set(answer.trim().split(/\s+/)).size !== 1;
}

export class Database {
  private readonly data: string;
  private readonly sockets: string;
  private readonly user: Identity;
  private readonly programs = programFolder();
  private server: ChildProcess | undefined;
  /** The end of what the server said since its start. */
  log = "";

  /** Its data is on the disk mounted at `mountPoint`; its socket in `sockets`, which it makes. */
  constructor(mountPoint: string, sockets: string) {
    this.user = postgresUser();
    this.data = join(mountPoint, "data");
    this.sockets = sockets;
    mkdirSync(sockets, { recursive: true });
    chownSync(sockets, this.user.uid, this.user.gid);
  }

  /** An empty cluster with checksums, and pgbench's tables: 100,000 accounts for each of `scale`. */
  async create(scale: number): Promise<void> {
    mkdirSync(this.data, { mode: 0o700 });
    chownSync(this.data, this.user.uid, this.user.gid);
    await this.run("initdb", ["--data-checksums", "--auth=trust", "-D", this.data]);
    await this.start();
    await this.run("pgbench", ["--initialize", "--quiet", `--scale=${scale}`, "postgres"]);
    await this.sql("create extension amcheck; create table commits (number bigint primary key)");
  }

  /** Starts it, which recovers what was cut off, and waits until it answers. */
  async start(): Promise<void> {
    this.log = "";
    // A copy's names the origin's process, which runs on this machine too.
    rmSync(join(this.data, "postmaster.pid"), { force: true });
    const args = ["-D", this.data, "-k", this.sockets, ...settings];
    const server = spawn(join(this.programs, "postgres"), args, {
      stdio: ["ignore", "ignore", "pipe"],
      cwd: "/",
      ...this.user,
    });
    server.stderr!.on("data", (text) => {
      this.log = (this.log + text).slice(-4000);
    });
    this.server = server;
    const untilMs = Date.now() + startMs;
    for (;;) {
      const answer = await this.sql("select 1").catch((error: Error) => error);
      if (typeof answer === "string") return;
      if (server.exitCode !== null || Date.now() > untilMs) {
        throw new KeelsonError("UNAVAILABLE", `PostgreSQL does not start: ${this.log.trim()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  sql(text: string): Promise<string> {
    return this.run("psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, "postgres"]);
  }

  /** pgbench's mix of reads and writes by `clients`, until it is ended or loses its server. */
  load(clients: number): ChildProcess {
    const args = ["--no-vacuum", `--client=${clients}`, "--time=86400", "postgres"];
    return spawn(join(this.programs, "pgbench"), args, this.childOptions("ignore"));
  }

  /** A session that commits 1, 2, 3, ... after `from`, one at a time. */
  commits(from: number): Commits {
    const args = ["-XAtq", "-v", "ON_ERROR_STOP=1", "postgres"];
    return new Commits(spawn(join(this.programs, "psql"), args, this.childOptions("pipe")), from);
  }

  /** Every table, every index against its table; pgbench's four sums are one. */
  async check(): Promise<void> {
    await this.run("pg_amcheck", ["--heapallindexed", "--rootdescend", "postgres"]);
    const sums = await this.sql(checkOfSums);
    if (sumsDiffer(sums)) {
      throw new KeelsonError("INTERNAL", `pgbench's sums differ: ${sums.replaceAll("\n", " ")}`);
    }
  }

  /** The highest number committed; all below it must be there too. */
  async lastCommit(): Promise<number> {
    const answer = await this.sql("select coalesce(max(number), 0), count(*) from commits");
    const [last, count] = answer.trim().split("|").map(Number);
    if (last !== count) {
      throw new KeelsonError("INTERNAL", `${count} commits are there, the last is number ${last}.`);
    }
    return last;
  }

  /** Fast shutdown: connections are ended, a checkpoint is written. */
  async stop(): Promise<void> {
    if (this.server !== undefined) await endProcess(this.server, "SIGINT");
  }

  /** The server and its children at once. */
  async kill(): Promise<void> {
    if (this.server !== undefined) await killWithChildren(this.server);
  }

  private run(program: string, args: readonly string[]): Promise<string> {
    return must(join(this.programs, program), args, this.user, this.environment());
  }

  private environment(): NodeJS.ProcessEnv {
    return { PGHOST: this.sockets, PGUSER: "postgres", PGCONNECT_TIMEOUT: "10" };
  }

  private childOptions(input: "ignore" | "pipe") {
    return {
      stdio: [input, input, "ignore"] as StdioOptions,
      cwd: "/",
      env: { ...process.env, ...this.environment() },
      ...this.user,
    };
  }
}

/** Whoever is told of a commit relies on it: `acknowledged` must outlive any cut. */
export class Commits {
  acknowledged: number;
  private readonly session: ChildProcess;
  private stopped = false;

  constructor(session: ChildProcess, from: number) {
    this.session = session;
    this.acknowledged = from;
    session.stdin!.on("error", () => {});
    session.once("error", () => {});
    const next = () => {
      const number = this.acknowledged + 1;
      session.stdin!.write(`insert into commits values (${number}) returning number;\n`);
    };
    createInterface({ input: session.stdout! }).on("line", (line) => {
      if (this.stopped || Number(line) !== this.acknowledged + 1) return;
      this.acknowledged++;
      next();
    });
    next();
  }

  get ended(): boolean {
    return hasEnded(this.session);
  }

  stop(): void {
    this.stopped = true;
    this.session.kill("SIGKILL");
  }
}
