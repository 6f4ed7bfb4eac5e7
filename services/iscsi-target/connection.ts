/**
 * One TCP connection, which is one session (MaxConnections=1, ERL 0): what it is in the middle of
 * receiving, its sequence numbers, its tasks. State only; who acts on it says so in its own file.
 *
 *   login --full feature--> fullFeature --logout, fault, reinstatement--> closing --> (id free)
 */
import type { Iqn } from "#lib/model/ids.ts";
import { defaultParameters, type SessionParameters } from "#lib/wire/iscsi/negotiation.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import type { LoginExchange } from "./login.ts";
import { TaskQueue, type TaskTable } from "./task-table.ts";

export const Phase = { login: 1, fullFeature: 2, closing: 3 } as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

/** Commands a session may have outstanding. */
export const commandWindow = 128;

/** Where the bytes of the data segment now coming in go. */
export const DataMode = { none: 0, payload: 1, discard: 2 } as const;

export class Connection {
  readonly id: number;
  readonly sessionId: number;
  readonly remoteAddress: string;
  readonly portal: string;
  readonly fromLoopback: boolean;
  readonly acceptedMs: number;
  readonly acceptedAt: Date;
  phase: Phase = Phase.login;
  /** Gone once the session is in full feature. */
  login: LoginExchange | undefined;
  /** A complete log-in whose volume isn't open yet: answered by then, or refused. */
  loginWaiting: { readonly answer: () => void; readonly sinceMs: number } | undefined;

  // Receiving.
  headerDigest = false;
  dataDigest = false;
  dataMode: number = DataMode.none;
  dataTask = -1;
  /** The segment ends its burst; its length, pad not counted. */
  dataFinal = false;
  dataLength = 0;
  /** Start of this segment in the payload, what came so far, what is still to come. */
  dataStart = 0;
  dataAt = 0;
  dataRemaining = 0;
  /** Bytes of the segment past what the command can take. */
  dataExcess = 0;
  /** Pad and digest bytes still to come, and those that came. */
  trailerRemaining = 0;
  trailerBytes = 0;
  readonly trailer = new Uint8Array(8);
  stalled = false;
  /** A stall ends when there is room in the send queue (else: payload or tasks). */
  stalledForSend = false;
  lastReceivedMs = 0;
  /** Tag of our NOP-In that wants an answer; 0: none. */
  pingTag = 0;
  pingSentMs = 0;

  // Sequence numbers, unsigned 32 bit.
  statSN = 0;
  expCmdSN = 0;
  /** Commands whose answer isn't queued yet. */
  outstanding = 0;

  // Tasks.
  taskHead = -1;
  readonly sendWaiting: TaskQueue;
  awaitingDataOut = 0;
  sendAnnounced = false;

  // Session.
  kind: "discovery" | "normal" = "normal";
  initiator = "" as Iqn;
  isid = "000000000000";
  tsih = 0;
  unit: LogicalUnit | undefined;
  authenticated: "none" | "chap" | "mutualChap" = "none";
  parameters: SessionParameters = defaultParameters();
  /** Senses to report, oldest first; `attention` is true while there are any. */
  readonly unitAttentions: number[] = [];
  since: Date;
  lastIoMs = 0;
  bytesRead = 0;
  bytesWritten = 0;
  earlierLogins = 0;
  /** Text negotiation in full feature: what came with the C bit so far. */
  textPartial: Uint8Array = new Uint8Array(0);

  constructor(
    id: number,
    sessionId: number,
    remoteAddress: string,
    portal: string,
    nowMs: number,
    wallMs: number,
    table: TaskTable,
  ) {
    this.id = id;
    this.sessionId = sessionId;
    this.remoteAddress = remoteAddress;
    this.portal = portal;
    this.fromLoopback = isLoopback(remoteAddress);
    this.acceptedMs = nowMs;
    this.lastReceivedMs = nowMs;
    this.acceptedAt = new Date(wallMs);
    this.since = this.acceptedAt;
    this.sendWaiting = new TaskQueue(table);
  }

  /** Queues a unit attention once. */
  attend(sense: number): void {
    if (!this.unitAttentions.includes(sense)) this.unitAttentions.push(sense);
  }

  /** Largest CmdSN that may come: the window less what is unanswered. */
  maxCmdSN(): number {
    return (this.expCmdSN + commandWindow - 1 - this.outstanding) >>> 0;
  }
}

/** `HOST:PORT`, IPv6 hosts in brackets, mapped IPv4 as either. */
export function isLoopback(address: string): boolean {
  const host = hostOf(address);
  return /^(?:::ffff:)?127\./.test(host) || host === "::1";
}

export function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(":")).replace(/^\[|\]$/g, "");
}
