/**
 * The target: connections, sessions, exports and their units. Sans-IO: a driver feeds it bytes and
 * time (driver.ts), a BlockPort carries its requests.
 */
import type { Iqn } from "#lib/model/ids.ts";
import type { BlockPort } from "#lib/volume/block.ts";
import {
  LoginFlag,
  LoginStatus,
  loginLayout,
  loginResponseLayout,
  TargetOpcode,
} from "#lib/wire/iscsi/pdu.ts";
import { formatText } from "#lib/wire/iscsi/text.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import { BlockCommands } from "./block-commands.ts";
import { Connection, hostOf, Phase } from "./connection.ts";
import { DataPath } from "./data-path.ts";
import { type DrivenCore, type DriverHost, maxConnections } from "./driver.ts";
import { ExportTable } from "./export-table.ts";
import { FullFeature } from "./full-feature.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import { type FailureReason, LoginExchange, type LoginOutcome, type LoginPdu } from "./login.ts";
import { LoginLimiter } from "./login-limiter.ts";
import { RareCommands } from "./rare-commands.ts";
import { Receiver } from "./receiver.ts";
import { ReservationCommands } from "./reservation-commands.ts";
import type { ApplyResult, ExportsPut, ExportsView, SessionsView, SessionView } from "./schema.ts";
import { ScsiDispatch } from "./scsi-dispatch.ts";

export interface CoreOptions {
  readonly port: BlockPort;
  readonly host: DriverHost;
  /** Milliseconds since 1970, for what people read. */
  readonly wallMs: () => number;
  /** For the log: what a person should know. Never holds a secret. */
  readonly onEvent: (event: CoreEvent) => void;
  /** A session began or ended. */
  readonly onSessions: () => void;
  readonly taskCapacity?: number;
}

export interface CoreEvent {
  readonly kind: "login" | "loginFailed" | "ended" | "dropped" | "unit";
  readonly remoteAddress?: string;
  readonly initiator?: string;
  readonly target?: string;
  readonly why?: string;
}

const loginTimeoutMs = 15_000;
/** A log-in waits so long for its volume to open. */
const volumeTimeoutMs = 8_000;
const pingAfterMs = 20_000;
const pingTimeoutMs = 20_000;
const endedForMs = 60_000;
const mostEnded = 256;

export class TargetCore implements DrivenCore {
  readonly headers: Uint8Array;
  readonly queues: DataPath["queues"];
  private readonly options: CoreOptions;
  private readonly port: BlockPort;
  private readonly host: DriverHost;
  private readonly connections: (Connection | undefined)[] = new Array(maxConnections).fill(
    undefined,
  );
  private readonly freeIds: number[] = [];
  private readonly path: DataPath;
  private readonly receiver: Receiver;
  private readonly fullFeature: FullFeature;
  private readonly exports: ExportTable;
  private readonly limiter = new LoginLimiter();
  private readonly logins = new Map<string, number>();
  private ended: { readonly atMs: number; readonly view: SessionView }[] = [];
  readonly loginFailures: Record<FailureReason, number> = {
    authentication: 0,
    notFound: 0,
    rateLimited: 0,
    protocol: 0,
  };
  private nowMs = 0;
  private nextSessionId = 1;
  private nextTsih = 1;

  constructor(options: CoreOptions) {
    this.options = options;
    this.port = options.port;
    this.host = options.host;
    for (let id = maxConnections - 1; id >= 0; id--) this.freeIds.push(id);
    this.path = new DataPath(this.port, this.host, this.connections, options.taskCapacity);
    this.queues = this.path.queues;
    this.headers = this.queues.headers;
    this.exports = new ExportTable({
      path: this.path,
      sessionsOf: (unit) => this.sessionsOf(unit),
      endSession: (c, why) => this.end(c, why, false),
      onReady: (unit) => this.unitReady(unit),
      onChange: (unit, why) =>
        options.onEvent({ kind: "unit", target: unit.entry.iqn, why: `${unit.state}: ${why}` }),
    });
    const sessionsOf = (unit: LogicalUnit) => this.sessionsOf(unit);
    const blocks = new BlockCommands(this.path, (unit) => this.path.releaseHeld(unit));
    const reserve = new ReservationCommands(this.path, sessionsOf);
    const rare = new RareCommands(this.path, blocks, reserve, sessionsOf);
    this.fullFeature = new FullFeature({
      path: this.path,
      host: this.host,
      sessionsOf,
      sendTargets: (c, which) => this.sendTargets(c, which),
      endSession: (c, why) => this.end(c, why, true),
    });
    this.receiver = new Receiver({
      path: this.path,
      port: this.port,
      dispatch: new ScsiDispatch(this.path, rare),
      fullFeature: this.fullFeature,
      login: (c, header, text) => this.login(c, header, text),
      drop: (c, why) => this.drop(c, why),
    });
  }

  // ---- driven ----

  accepted(remoteAddress: string, portal: string): number {
    const id = this.freeIds.pop();
    if (id === undefined) return -1;
    this.queues.reset(id);
    this.connections[id] = new Connection(
      id,
      this.nextSessionId++,
      remoteAddress,
      portal,
      this.nowMs,
      this.options.wallMs(),
      this.path.table,
    );
    return id;
  }

  received(id: number, buffer: Uint8Array, start: number, end: number): number {
    const c = this.connections[id];
    if (c === undefined) return end;
    c.lastReceivedMs = this.nowMs;
    return this.receiver.received(c, buffer, start, end);
  }

  stalled(id: number): boolean {
    return this.connections[id]?.stalled ?? false;
  }

  directBytes(id: number): number {
    const c = this.connections[id];
    return c === undefined ? 0 : this.receiver.directBytes(c);
  }

  directOffset(id: number): number {
    return this.connections[id]?.dataAt ?? 0;
  }

  receivedDirect(id: number, bytes: number): void {
    const c = this.connections[id];
    if (c === undefined) return;
    c.lastReceivedMs = this.nowMs;
    this.receiver.receivedDirect(c, bytes);
  }

  sent(id: number, bytes: number): void {
    const c = this.connections[id];
    if (c !== undefined) this.path.sent(c, bytes);
  }

  closed(id: number): void {
    const c = this.connections[id];
    if (c === undefined) return;
    const ended = c.phase;
    c.phase = Phase.closing;
    this.fullFeature.forget(c);
    this.path.forget(c);
    this.queues.drop(id);
    while (c.taskHead >= 0) this.path.abort(c, c.taskHead, true);
    this.connections[id] = undefined;
    this.freeIds.push(id);
    if (ended === Phase.fullFeature) this.announceEnd(c, "the connection was closed");
  }

  pollStore(): number {
    const count = this.path.pollStore();
    this.exports.checkStore(this.nowMs);
    return count;
  }

  endBatch(): void {
    this.port.kick();
  }

  tick(nowMs: number): void {
    this.nowMs = nowMs;
    this.exports.tick(nowMs);
    for (const c of this.connections) {
      if (c === undefined || c.phase === Phase.closing) continue;
      if (c.phase === Phase.login) this.watchLogin(c, nowMs);
      else this.watchSession(c, nowMs);
    }
  }

  private watchLogin(c: Connection, nowMs: number): void {
    if (c.loginWaiting !== undefined && nowMs - c.loginWaiting.sinceMs > volumeTimeoutMs) {
      c.loginWaiting = undefined;
      c.stalled = false;
      this.refuseLogin(c, LoginStatus.serviceUnavailable, "the volume is not available now");
      return;
    }
    if (nowMs - c.acceptedMs > loginTimeoutMs) this.drop(c, "log-in took too long");
  }

  private watchSession(c: Connection, nowMs: number): void {
    if (c.pingTag !== 0 && c.lastReceivedMs < c.pingSentMs) {
      if (nowMs - c.pingSentMs > pingTimeoutMs) this.end(c, "no answer to NOP-In", false);
    } else if (nowMs - c.lastReceivedMs > pingAfterMs) this.fullFeature.ping(c, nowMs);
  }

  // ---- sessions ----

  private *sessionsOf(unit: LogicalUnit): Generator<Connection> {
    for (const c of this.connections) {
      if (c !== undefined && c.unit === unit && c.phase === Phase.fullFeature) yield c;
    }
  }

  /** Ends a session, or a log-in, that was all right so far. */
  private end(c: Connection, why: string, drain: boolean): void {
    if (c.phase === Phase.closing) return;
    const was = c.phase;
    c.phase = Phase.closing;
    this.host.close(c.id, drain);
    if (was === Phase.fullFeature) this.announceEnd(c, why);
  }

  private keepEnded(c: Connection): void {
    if (c.kind !== "normal") return;
    // Its connection is closing by now; the session was in full feature phase until its end.
    const view = { ...this.sessionView(c, this.options.wallMs()), phase: "fullFeature" as const };
    this.ended.push({ atMs: this.nowMs, view });
    if (this.ended.length > mostEnded) this.ended.shift();
  }

  private announceEnd(c: Connection, why: string): void {
    this.keepEnded(c);
    const { remoteAddress, initiator } = c;
    const target = c.unit?.entry.iqn;
    this.options.onEvent({
      kind: "ended",
      remoteAddress,
      initiator,
      why,
      ...(target === undefined ? {} : { target }),
    });
    this.options.onSessions();
  }

  /** Bad input: the connection ends and says nothing. */
  private drop(c: Connection, why: string): void {
    if (c.phase === Phase.closing) return;
    if (c.phase === Phase.login) this.loginFailures.protocol++;
    const full = c.phase === Phase.fullFeature;
    c.phase = Phase.closing;
    this.host.close(c.id, false);
    this.options.onEvent({ kind: "dropped", remoteAddress: c.remoteAddress, why });
    if (!full) return;
    this.keepEnded(c);
    this.options.onSessions();
  }

  // ---- log-in ----

  private login(c: Connection, header: Uint8Array, text: Uint8Array): void {
    const pdu = loginLayout.decode(header)!;
    if (c.login === undefined) {
      c.expCmdSN = pdu.cmdSN;
      c.isid = Buffer.from(pdu.isid).toString("hex");
      if (pdu.tsih !== 0) {
        this.answerLogin(c, pdu, LoginStatus.sessionDoesNotExist, 0, []);
        this.end(c, "a connection was to join a session", true);
        return;
      }
      c.login = new LoginExchange({
        fromLoopback: c.fromLoopback,
        findTarget: (iqn) => this.exports.byIqn(iqn),
        credentials: (initiator) => this.exports.credentials(initiator, c.fromLoopback),
        limited: () => this.limiter.limited(hostOf(c.remoteAddress), this.nowMs),
      });
    }
    this.settleLogin(c, pdu, c.login, c.login.receive(pdu, text));
  }

  private settleLogin(
    c: Connection,
    pdu: LoginPdu,
    exchange: LoginExchange,
    outcome: LoginOutcome,
  ): void {
    switch (outcome.kind) {
      case "fail": {
        this.loginFailures[outcome.reason]++;
        if (outcome.reason === "authentication") {
          this.limiter.failed(hostOf(c.remoteAddress), this.nowMs);
        }
        this.answerLogin(c, pdu, outcome.status, 0, []);
        c.initiator = exchange.initiator ?? c.initiator;
        this.failedLogin(c, outcome.why, exchange.unit?.entry.iqn);
        return;
      }
      case "answer": {
        const flags = pdu.flags & (LoginFlag.currentStage | LoginFlag.nextStage);
        const transit = outcome.transit ? LoginFlag.transit : 0;
        const stages = outcome.transit ? flags : flags & LoginFlag.currentStage;
        this.answerLogin(c, pdu, LoginStatus.success, transit | stages, outcome.pairs);
        return;
      }
      case "complete": {
        const complete = () => this.completeLogin(c, pdu, exchange, outcome.pairs);
        const unit = exchange.unit;
        if (unit === undefined || unit.blocks > 0) complete();
        else {
          c.stalled = true;
          c.initiator = exchange.initiator!;
          c.unit = unit;
          c.loginWaiting = {
            sinceMs: this.nowMs,
            answer: () => {
              c.loginWaiting = undefined;
              c.stalled = false;
              complete();
              this.host.resume(c.id);
            },
          };
        }
      }
    }
  }

  private failedLogin(c: Connection, why: string, target: string | undefined): void {
    this.options.onEvent({
      kind: "loginFailed",
      remoteAddress: c.remoteAddress,
      why,
      ...(c.initiator === "" ? {} : { initiator: c.initiator }),
      ...(target === undefined ? {} : { target }),
    });
    this.end(c, why, true);
  }

  /** A log-in whose volume doesn't open: its stages are over, so only the status tells. */
  private refuseLogin(c: Connection, status: number, why: string): void {
    const bhs = loginResponseLayout.encode({
      opcode: TargetOpcode.loginResponse,
      isid: Buffer.from(c.isid, "hex"),
      statSN: c.statSN,
      status,
    });
    this.path.writer.send(c, bhs, undefined);
    this.failedLogin(c, why, c.unit?.entry.iqn);
  }

  private answerLogin(
    c: Connection,
    pdu: LoginPdu,
    status: number,
    flags: number,
    pairs: Iterable<readonly [string, string]>,
  ): void {
    const bhs = loginResponseLayout.encode({
      opcode: TargetOpcode.loginResponse,
      flags,
      isid: pdu.isid,
      tsih: (flags & LoginFlag.nextStage) === 3 && flags >= LoginFlag.transit ? c.tsih : pdu.tsih,
      initiatorTaskTag: pdu.initiatorTaskTag,
      statSN: c.statSN,
      status,
    });
    c.statSN = (c.statSN + 1) >>> 0;
    this.path.writer.send(c, bhs, formatText(pairs));
  }

  private completeLogin(
    c: Connection,
    pdu: LoginPdu,
    exchange: LoginExchange,
    pairs: Iterable<readonly [string, string]>,
  ): void {
    const initiator = exchange.initiator!;
    for (const other of this.connections) {
      // Session reinstatement (section 6.3.5): the same initiator port, target and group.
      if (
        other !== undefined &&
        other !== c &&
        other.phase === Phase.fullFeature &&
        other.initiator === initiator &&
        other.isid === c.isid &&
        other.unit === exchange.unit
      ) {
        this.end(other, "reinstated by a new log-in", false);
      }
    }
    c.tsih = this.nextTsih;
    this.nextTsih = (this.nextTsih % 0xffff) + 1;
    this.answerLogin(c, pdu, LoginStatus.success, pdu.flags & 0x8f, pairs);
    c.initiator = initiator;
    c.kind = exchange.kind;
    c.unit = exchange.unit;
    c.authenticated = exchange.authenticated;
    c.parameters = exchange.parameters;
    c.headerDigest = exchange.parameters.headerDigest;
    c.dataDigest = exchange.parameters.dataDigest;
    c.login = undefined;
    c.phase = Phase.fullFeature;
    c.since = new Date(this.options.wallMs());
    if (c.unit !== undefined) {
      const key = `${initiator} ${c.unit.entry.id}`;
      c.earlierLogins = this.logins.get(key) ?? 0;
      this.logins.set(key, c.earlierLogins + 1);
      // What was volatile may be gone since the initiator was here last (SAM-5 section 5.14).
      c.attend(Sense.powerOnOrReset);
    }
    const target = c.unit?.entry.iqn;
    this.options.onEvent({
      kind: "login",
      remoteAddress: c.remoteAddress,
      initiator,
      ...(target === undefined ? {} : { target }),
    });
    this.options.onSessions();
  }

  private unitReady(unit: LogicalUnit): void {
    this.path.releaseHeld(unit);
    for (const c of this.connections) {
      if (c?.unit === unit && unit.blocks > 0) c.loginWaiting?.answer();
    }
  }

  private sendTargets(c: Connection, which: string): Uint8Array {
    const all = which === "All" && c.kind === "discovery";
    const own = c.unit?.entry.iqn;
    const pairs: [string, string][] = [];
    for (const unit of this.exports.visible(c.initiator, c.fromLoopback)) {
      const { iqn } = unit.entry;
      const asked = all || (which === "" ? iqn === own : iqn === which.toLowerCase());
      if (!asked) continue;
      pairs.push(["TargetName", iqn], ["TargetAddress", `${c.portal},1`]);
    }
    return formatText(pairs);
  }

  // ---- control ----

  /** STALE_GENERATION for an older one. */
  apply(put: ExportsPut): ApplyResult {
    const sessionsEnded = this.exports.apply(put);
    return { generation: put.generation, sessionsEnded };
  }

  get generation(): number {
    return this.exports.generation;
  }

  get sessionCount(): number {
    return this.connections.filter((c) => c?.phase === Phase.fullFeature).length;
  }

  get storeConnected(): boolean {
    return this.port.connected;
  }

  exportsView(): ExportsView {
    return this.exports.view();
  }

  sessionsView(): SessionsView {
    const wallMs = this.options.wallMs();
    this.ended = this.ended.filter(({ atMs }) => this.nowMs - atMs < endedForMs);
    return {
      ended: this.ended.map(({ view }) => view),
      sessions: this.connections
        .filter((c) => c !== undefined && c.phase !== Phase.closing)
        .map((c) => this.sessionView(c!, wallMs)),
    };
  }

  private sessionView(c: Connection, wallMs: number): SessionView {
    const lastIoMs = c.lastIoMs === 0 ? null : wallMs - (this.nowMs - c.lastIoMs);
    return {
      id: c.sessionId,
      kind: c.kind,
      phase: c.phase === Phase.fullFeature ? "fullFeature" : "login",
      initiator: c.initiator as Iqn,
      exportId: c.unit?.entry.id ?? null,
      target: c.unit?.entry.iqn ?? null,
      volumeId: c.unit?.volumeId ?? null,
      remoteAddress: c.remoteAddress,
      portal: c.portal,
      isid: c.isid,
      authenticated: c.authenticated,
      since: c.since.toISOString(),
      lastIoAt: lastIoMs === null ? null : new Date(lastIoMs).toISOString(),
      bytesRead: c.bytesRead,
      bytesWritten: c.bytesWritten,
      earlierLogins: c.earlierLogins,
    };
  }
}
