/**
 * Clients as observed: disposable, kept in memory. A boot is a list of stages:
 *
 *   dhcp -> loader -> script            reported by netboot
 *                       `-> san -> os   iSCSI sessions of the boot entry's initiator name
 *
 * The first session after the script is the loader's (san), the next one the booted system's (os).
 * iPXE logs in anew after a lost connection: its sessions, known by their ISID, are never `os`.
 * Reports and sessions come by two ways and may overtake each other on a busy node, so what counts
 * is when a thing happened, by the node's wall clock, not when it was told.
 */
import type { SessionsView, SessionView } from "#services/iscsi-target/schema.ts";
import type { StageReport } from "./boot-schema.ts";
import type { Clock } from "./clock.ts";
import type { BootRecord } from "./policy.ts";
import { type BootStage, bootStages } from "./schema.ts";

interface ReachedStage {
  stage: BootStage;
  at: string;
  detail: string | null;
}

export interface ObservedClient {
  readonly mac: string;
  uuid: string | null;
  address: string | null;
  arch: string | null;
  stages: ReachedStage[];
  readonly firstSeenAt: string;
  lastSeenAt: string;
  lastSeenMs: number;
  sessionCount: number;
  failure: string | null;
  /** When it last came a stage further, by the boot-time clock. */
  reachedMs: number;
}

/** Forged frames may bear any address: the longest unseen is forgotten beyond this. */
const mostClients = 4096;

/**
 * No report of netboot is under way for longer: one told later than this is of a new boot, also if
 * the wall clock was set back meanwhile.
 */
const overtakenMs = 90_000;

/** RFC 4578 section 2.1 and IANA's list of processor architectures. */
const architectures: Record<number, string> = {
  0: "bios",
  6: "uefi-ia32",
  7: "uefi-x64",
  9: "uefi-x64",
  10: "uefi-arm32",
  11: "uefi-arm64",
  15: "uefi-ia32-http",
  16: "uefi-x64-http",
  18: "uefi-arm32-http",
  19: "uefi-arm64-http",
  20: "bios-http",
};

export function nameArchitecture(arch: number): string {
  return architectures[arch] ?? `arch-${arch}`;
}

/** iPXE's ISID: type EN (01b), enterprise number 10019 (RFC 7143 section 11.12.5). */
const ipxeIsid = /^40-?00-?27-?23/i;

export class ClientRegistry {
  readonly #clock: Clock;
  readonly #clients = new Map<string, ObservedClient>();
  readonly #listeners = new Set<() => void>();
  /** Sessions counted already, by id and start: ids begin anew with iscsi-target's process. */
  #seen: Set<string> | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  list(): ObservedClient[] {
    return [...this.#clients.values()];
  }

  find(mac: string): ObservedClient | undefined {
    return this.#clients.get(mac);
  }

  forget(mac: string): boolean {
    const known = this.#clients.delete(mac);
    this.#tell();
    return known;
  }

  /** A stage that netboot saw. */
  report(report: StageReport): void {
    const client = this.#touch(report.mac);
    if (report.uuid !== undefined) client.uuid = report.uuid;
    if (report.ip !== undefined) client.address = report.ip;
    if (report.arch !== undefined) client.arch = nameArchitecture(report.arch);
    if (this.#beginsBoot(client, report)) {
      client.stages = [];
      client.failure = null;
      client.sessionCount = 0;
    }
    if (!this.#isRunningSystem(client, report)) {
      this.#reach(client, report.stage, report.detail ?? null, report.at);
    }
    this.#tell();
  }

  /** What went wrong with a client's boot, or null: it went well so far. */
  setFailure(mac: string, failure: string | null): void {
    this.#touch(mac).failure = failure;
    this.#tell();
  }

  /** The target's sessions as they are now. */
  applySessions(view: SessionsView, boots: readonly BootRecord[]): void {
    const open = view.sessions.filter(
      ({ kind, phase }) => kind === "normal" && phase === "fullFeature",
    );
    // Of what ended before this process began, nobody knows which boot it was of.
    const seen = this.#seen ?? new Set(view.ended.map(keyOf));
    // A log-in counts, also if the session was over before it was told of.
    const fresh = [...view.ended, ...open]
      .filter((session) => !seen.has(keyOf(session)))
      .sort((a, b) => Date.parse(a.since) - Date.parse(b.since) || a.id - b.id);
    const openOf = Map.groupBy(open, ({ initiator }) => initiator);
    const freshOf = Map.groupBy(fresh, ({ initiator }) => initiator);
    let changed = false;
    for (const boot of boots) {
      const openCount = openOf.get(boot.initiatorIqn)?.length ?? 0;
      const logIns = freshOf.get(boot.initiatorIqn) ?? [];
      const client = this.#clientOf(boot, openCount + logIns.length > 0);
      if (client === undefined) continue;
      if (client.sessionCount !== openCount || logIns.length > 0) changed = true;
      client.sessionCount = openCount;
      for (const session of logIns) this.#applyLogIn(client, session);
    }
    this.#seen = new Set([...view.ended, ...open].map(keyOf));
    if (changed) this.#tell();
  }

  #applyLogIn(client: ObservedClient, session: SessionView): void {
    this.#seenNow(client);
    client.address ??= session.remoteAddress.replace(/:\d+$/, "");
    const reached = (stage: BootStage) => client.stages.some((entry) => entry.stage === stage);
    // Without a script (api was restarted since) the target's own count tells which log-in it is.
    const isFirst = reached("script") ? !reached("san") : session.earlierLogins === 0;
    if (isFirst && !reached("san")) this.#reach(client, "san", null, session.since);
    else if (!ipxeIsid.test(session.isid)) {
      if (!reached("san")) this.#reach(client, "san", null, session.since);
      this.#reach(client, "os", null, session.since);
    }
    client.failure = null;
  }

  /** By its MAC, or by its UUID where the entry has no MAC. */
  #clientOf(boot: BootRecord, create: boolean): ObservedClient | undefined {
    if (boot.mac !== null) {
      return create ? this.#touch(boot.mac) : this.#clients.get(boot.mac);
    }
    return this.list().find(({ uuid }) => uuid !== null && uuid === boot.uuid);
  }

  /**
   * dhcp (with an architecture: a boot ROM) or loader after the script, or a script after the disk
   * was reached: the machine was started again.
   */
  #beginsBoot(client: ObservedClient, { stage, arch, at }: StageReport): boolean {
    if (stage === "dhcp" && arch === undefined) return false;
    const last = client.stages.at(-1);
    // The script is reported by both who makes it and who serves it.
    const least = rank(stage === "script" ? "san" : "script");
    if (last === undefined || rank(last.stage) < least) return false;
    if (this.#clock.bootMs() - client.reachedMs > overtakenMs) return true;
    return Date.parse(at ?? this.#clock.now()) > Date.parse(last.at);
  }

  /** A booted system asks for its address too, without an architecture: no new stage. */
  #isRunningSystem(client: ObservedClient, { stage, arch }: StageReport): boolean {
    return stage === "dhcp" && arch === undefined && client.stages.length > 0;
  }

  #reach(
    client: ObservedClient,
    stage: BootStage,
    detail: string | null,
    at: string = this.#clock.now(),
  ): void {
    const known = client.stages.find((entry) => entry.stage === stage);
    if (known !== undefined) {
      // The first time counts: iPXE asks for an address again after the ROM did.
      if (detail !== null) known.detail = detail;
      return;
    }
    client.stages.push({ stage, at, detail });
    client.stages.sort((a, b) => rank(a.stage) - rank(b.stage));
    client.reachedMs = this.#clock.bootMs();
  }

  #touch(mac: string): ObservedClient {
    let client = this.#clients.get(mac);
    if (client === undefined) {
      const at = this.#clock.now();
      client = {
        mac,
        uuid: null,
        address: null,
        arch: null,
        stages: [],
        firstSeenAt: at,
        lastSeenAt: at,
        lastSeenMs: 0,
        sessionCount: 0,
        failure: null,
        reachedMs: Number.NEGATIVE_INFINITY,
      };
      this.#clients.set(mac, client);
      this.#dropOldest();
    }
    this.#seenNow(client);
    return client;
  }

  #seenNow(client: ObservedClient): void {
    client.lastSeenAt = this.#clock.now();
    client.lastSeenMs = this.#clock.bootMs();
    // Most recent last, so that the first is the longest unseen.
    this.#clients.delete(client.mac);
    this.#clients.set(client.mac, client);
  }

  #dropOldest(): void {
    if (this.#clients.size <= mostClients) return;
    const [oldest] = this.#clients.keys();
    this.#clients.delete(oldest);
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

function rank(stage: BootStage): number {
  return bootStages.indexOf(stage);
}

function keyOf(session: SessionView): string {
  return `${session.id} ${session.since}`;
}
