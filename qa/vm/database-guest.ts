/**
 * PostgreSQL inside a client, on a LUN that open-iscsi attaches: told over the client's serial line.
 * Server and load are transient units, so that they end whole.
 */
import { checkOfSums, settings, sumsDiffer } from "#qa/postgres/database.ts";
import { runOnClient } from "./client.ts";
import { expectThat } from "./expectation.ts";
import type { Machine } from "./machine.ts";

const stepMs = 900_000;
const acknowledgedFile = "/dev/shm/acknowledged";
const programs = "$(echo /usr/lib/postgresql/*/bin)";

/** A target's LUN 0 as a mounted ext4. */
export class GuestDisk {
  readonly mountPoint: string;
  private readonly client: Machine;
  private readonly node: string;
  private readonly device: string;

  /** `portal`: ADDRESS:PORT. */
  constructor(client: Machine, portal: string, target: string, name: string) {
    this.client = client;
    this.node = `iscsiadm -m node -T ${target} -p ${portal}`;
    this.device = `/dev/disk/by-path/ip-${portal}-iscsi-${target}-lun-0`;
    this.mountPoint = `/mnt/${name}`;
  }

  /** Logs in and mounts; `format` makes the file system first. */
  async attach(format = false): Promise<void> {
    await this.run(`${this.node} -o new && ${this.node} --login && udevadm settle`);
    await this.run(`for i in $(seq 60); do test -b ${this.device} && break; sleep 1; done`);
    if (format) await this.run(`mkfs.ext4 -q -F ${this.device}`);
    await this.run(`mkdir -p ${this.mountPoint} && mount ${this.device} ${this.mountPoint}`);
  }

  /** Unmounts, has e2fsck read all of it, which must find nothing, and logs out. */
  async detach(): Promise<void> {
    await this.run(`umount ${this.mountPoint} && e2fsck -f -n ${this.device}`);
    await this.run(`${this.node} --logout && ${this.node} -o delete`);
  }

  private run(command: string): Promise<string> {
    return runOnClient(this.client, command, stepMs);
  }
}

export class GuestDatabase {
  private readonly client: Machine;
  private readonly name: string;
  private readonly data: string;
  private readonly sockets: string;

  /** Its data is on the disk mounted at `mountPoint`; `name` is one for its units and files. */
  constructor(client: Machine, mountPoint: string, name: string) {
    this.client = client;
    this.name = name;
    this.data = `${mountPoint}/data`;
    this.sockets = `/run/${name}`;
  }

  /** An empty cluster with checksums, and pgbench's tables. */
  async create(scale: number): Promise<void> {
    await this.run(`install -d -m 700 -o postgres ${this.data}`);
    await this.run(
      this.asPostgres(`initdb --data-checksums --auth=trust -D ${this.data} >/dev/null`),
    );
    await this.start();
    const initialise = `pgbench --initialize --quiet --scale=${scale} postgres 2>/dev/null`;
    await this.run(this.asPostgres(initialise));
    await this.sql("create extension amcheck; create table commits (number bigint primary key)");
  }

  /** Starts it, which recovers what was cut off, and waits until it answers. */
  async start(): Promise<void> {
    await this.run(`install -d -o postgres ${this.sockets}; rm -f ${this.data}/postmaster.pid`);
    await this.unit(
      "server",
      `exec postgres -D ${this.data} -k ${this.sockets} ${settings.join(" ")}`,
    );
    const ready = this.asPostgres("pg_isready -q");
    const server = `${this.name}-server`;
    await this.run(
      `for i in $(seq 300); do ${ready} && break; systemctl -q is-active ${server} || break; sleep 1; done`,
    );
    await this.run(`${ready} || { journalctl -o cat -n 20 -u ${server}; false; }`);
  }

  /** pgbench by `clients`, and a session that commits `from` + 1, + 2, ..., until they are ended. */
  async startLoad(clients: number, from: number): Promise<void> {
    await this.unit("load", `pgbench --no-vacuum --client=${clients} --time=86400 postgres`);
    const insert =
      'psql -XAtq -v ON_ERROR_STOP=1 -c \\"insert into commits values ($n)\\" postgres';
    const tell = `echo $n >${acknowledgedFile}.new && mv ${acknowledgedFile}.new ${acknowledgedFile}`;
    await this.run(`echo ${from} >${acknowledgedFile}; chown postgres ${acknowledgedFile}`);
    await this.unit("commits", `n=$((${from}+1)); while ${insert}; do ${tell}; n=$((n+1)); done`);
  }

  /** The last commit of the session that was acknowledged; both loads must still run. */
  async acknowledged(): Promise<number> {
    const units = `${this.name}-load ${this.name}-commits`;
    const state = await this.run(`systemctl is-active ${units}; cat ${acknowledgedFile}`);
    const [load, commits, number] = state.split(/\s+/);
    expectThat(load === "active" && commits === "active", `pgbench is ${load}, psql ${commits}.`);
    return Number(number);
  }

  async endLoad(): Promise<void> {
    await this.run(`systemctl stop ${this.name}-load ${this.name}-commits`);
  }

  /** Every table, every index against its table; pgbench's four sums are one. */
  async check(): Promise<void> {
    await this.run(this.asPostgres("pg_amcheck --heapallindexed --rootdescend postgres"));
    const sums = await this.sql(checkOfSums);
    expectThat(!sumsDiffer(sums), `pgbench's sums differ: ${sums}.`);
  }

  /** The highest number committed; all below it must be there too. */
  async lastCommit(): Promise<number> {
    const answer = await this.sql("select coalesce(max(number), 0), count(*) from commits");
    const [last, count] = answer.split("|").map(Number);
    expectThat(last === count, `${count} commits are there, the last is number ${last}.`);
    return last;
  }

  /** Fast shutdown: a checkpoint is written. */
  async stop(): Promise<void> {
    await this.run(`systemctl kill --kill-whom=main -s INT ${this.name}-server`);
    await this.run(
      `for i in $(seq 300); do systemctl -q is-active ${this.name}-server || break; sleep 1; done`,
    );
  }

  private sql(text: string): Promise<string> {
    return this.run(this.asPostgres(`psql -XAtq -v ON_ERROR_STOP=1 -c '${text}' postgres`));
  }

  /** A transient unit that runs as postgres. */
  private async unit(what: string, command: string): Promise<void> {
    const name = `--unit=${this.name}-${what}`;
    const options = `--quiet --collect --expand-environment=no --uid=postgres ${name}`;
    const variables = `-E PGHOST=${this.sockets} -E PATH=${programs}:$PATH`;
    const escaped = command.replaceAll("$", "\\$");
    await this.run(`systemd-run ${options} ${variables} sh -c "${escaped}"`);
  }

  private asPostgres(command: string): string {
    return `runuser -u postgres -- env PGHOST=${this.sockets} PATH=${programs}:$PATH ${command}`;
  }

  private run(command: string): Promise<string> {
    return runOnClient(this.client, command, stepMs);
  }
}
