/**
 * The block protocol between a gateway and a store: what goes over the socket, and the records
 * that the shared-memory ring holds. Little-endian; every record is a multiple of 16 bytes.
 *
 *   gateway                                  store
 *   hello (64)                         --->
 *                                      <---  hello (64): version, mode, sizes; or why not
 *   open (64)                          --->
 *                                      <---  opened (64)
 *   request (64) [payload of a write]  --->                          inline mode: on this socket
 *                                      <---  completion (16) [payload of a good read]
 *
 * In ring mode requests and completions stand in shared memory (`ring.ts`), never on the socket;
 * the hello carries the memory from the gateway, and the store's answer the two eventfds.
 *
 *   hello     0 magic "KEELBLK1"    8 version      12 mode        16 entries
 *             20 payload bytes      24 refusal     28 zero
 *   request   0 operation           4 handle       8 tag          12 length in bytes
 *             16 first sector (64)  24 payload offset             28 flags
 *             32 writer's generation                              36 generation, 40 sequence (64)
 *   open      0 operation 100       4 zero         8 token        12 flags: 1 claims it
 *             16 volume id (16)     32 generation  36 group epoch 40 writer's id (8) 48 zero
 *   close     0 operation 101       4 handle       8 zero
 *   completion 0 tag                4 status       8 zero
 *   opened    0 -1 - token          4 status       8 zero
 *             16 handle             20 flags: 1 read-only, 2 partly                     24 size in bytes (64)
 *             32 writer's generation                              36 group epoch
 *             40 generation and 48 sequence (64) of the last version
 *             44 generation and 56 sequence (64) of the flushed version
 *   done      0 generation          4 flags: 1 discards, 2 partly
 *             8 sequence (64)       16 first sector (64)          24 sectors (64)
 *
 * A version is a generation and a sequence (lib/model/writer.ts). `done` records
 * are what operation 6 reads: what the volume's group did last, from number `first sector` on.
 */
import type { Operation, Version, Writer } from "#lib/model/writer.ts";

export const helloBytes = 64;
export const requestBytes = 64;
export const completionBytes = 16;
export const openedBytes = 64;
export const doneBytes = 32;
export const requestWords = requestBytes / 4;
export const completionWords = completionBytes / 4;

export const protocolVersion = 2;
export const Mode = { ring: 1, inline: 2 } as const;
export type Mode = (typeof Mode)[keyof typeof Mode];

/** Why a store refuses a hello. */
export const Refusal = { none: 0, version: 1, mode: 2, sizes: 3, busy: 4, magic: 5 } as const;
export type Refusal = (typeof Refusal)[keyof typeof Refusal];

export const refusalText: Record<Refusal, string> = {
  [Refusal.none]: "accepted",
  [Refusal.version]: "the store speaks another version of the protocol",
  [Refusal.mode]: "the store does not offer this mode",
  [Refusal.sizes]: "the sizes asked for are not allowed",
  [Refusal.busy]: "the store has too many connections",
  [Refusal.magic]: "this is not the block protocol",
};

/** Operations on the socket that are not block requests. */
export const openOperation = 100;
export const closeOperation = 101;
const openedFlag = { readOnly: 1, partly: 2 } as const;
const openClaims = 1;
const doneFlag = { discards: 1, partly: 2 } as const;

/** Words of a request, as indices into an Int32Array. */
export const Request = {
  operation: 0,
  handle: 1,
  tag: 2,
  lengthBytes: 3,
  sectorLow: 4,
  sectorHigh: 5,
  payloadOffset: 6,
  flags: 7,
  writer: 8,
  generation: 9,
  sequenceLow: 10,
  sequenceHigh: 11,
} as const;

export const minEntries = 2;
export const maxEntries = 4096;
export const minPayloadBytes = 1 << 20;
export const maxPayloadBytes = 1 << 28;

const magic = new TextEncoder().encode("KEELBLK1");
/** Sectors past this can't be counted exactly; none exist (2^53 bytes). */
const maxSectorHigh = 1 << 12;
/** Of numbers that are exact. */
const maxHigh = 1 << 21;

export interface Hello {
  readonly version: number;
  readonly mode: number;
  /** Requests that may be outstanding; a power of two. */
  readonly entries: number;
  readonly payloadBytes: number;
  readonly refusal: number;
}

export function encodeHello(hello: Hello): Uint8Array {
  const bytes = new Uint8Array(helloBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(magic);
  view.setUint32(8, hello.version, true);
  view.setUint32(12, hello.mode, true);
  view.setUint32(16, hello.entries, true);
  view.setUint32(20, hello.payloadBytes, true);
  view.setUint32(24, hello.refusal, true);
  return bytes;
}

/** Undefined if it isn't a hello at all. Versions and sizes are not judged here. */
export function decodeHello(bytes: Uint8Array): Hello | undefined {
  if (bytes.length < helloBytes || magic.some((byte, index) => bytes[index] !== byte)) {
    return undefined;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, helloBytes);
  return {
    version: view.getUint32(8, true),
    mode: view.getUint32(12, true),
    entries: view.getUint32(16, true),
    payloadBytes: view.getUint32(20, true),
    refusal: view.getUint32(24, true),
  };
}

/** What the store says to a gateway's hello: `Refusal.none`, or why not. */
export function judgeHello(hello: Hello | undefined, modes: readonly Mode[]): Refusal {
  if (hello === undefined) return Refusal.magic;
  if (hello.version !== protocolVersion) return Refusal.version;
  if (!modes.includes(hello.mode as Mode)) return Refusal.mode;
  const { entries, payloadBytes } = hello;
  const good =
    entries >= minEntries &&
    entries <= maxEntries &&
    (entries & (entries - 1)) === 0 &&
    payloadBytes >= minPayloadBytes &&
    payloadBytes <= maxPayloadBytes &&
    payloadBytes % minPayloadBytes === 0;
  return good ? Refusal.none : Refusal.sizes;
}

/** Writes a request at word `at`. `sector` < 2^53. */
export function encodeRequest(
  words: Int32Array,
  at: number,
  operation: number,
  handle: number,
  sector: number,
  lengthBytes: number,
  payloadOffset: number,
  flags: number,
  tag: number,
  writer = 0,
  generation = 0,
  sequence = 0,
): void {
  words[at] = operation;
  words[at + Request.handle] = handle;
  words[at + Request.tag] = tag;
  words[at + Request.lengthBytes] = lengthBytes;
  words[at + Request.sectorLow] = sector | 0;
  words[at + Request.sectorHigh] = Math.floor(sector / 2 ** 32);
  words[at + Request.payloadOffset] = payloadOffset;
  words[at + Request.flags] = flags;
  words[at + Request.writer] = writer;
  words[at + Request.generation] = generation;
  words[at + Request.sequenceLow] = sequence | 0;
  words[at + Request.sequenceHigh] = Math.floor(sequence / 2 ** 32);
}

/** First sector of the request at word `at`; -1 if it is past any that can exist. */
export function requestSector(words: Int32Array, at: number): number {
  const high = words[at + Request.sectorHigh] >>> 0;
  if (high >= maxSectorHigh) return -1;
  return high * 2 ** 32 + (words[at + Request.sectorLow] >>> 0);
}

/** Sequence of the request at word `at`; 0 if it is past any that can exist. */
export function requestSequence(words: Int32Array, at: number): number {
  const high = words[at + Request.sequenceHigh] >>> 0;
  return high >= maxHigh ? 0 : high * 2 ** 32 + (words[at + Request.sequenceLow] >>> 0);
}

/** `claim`: to write it, as this writer. */
export function encodeOpen(volumeId: string, token: number, claim?: Writer): Uint8Array {
  const bytes = new Uint8Array(requestBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, openOperation, true);
  view.setUint32(8, token, true);
  if (claim !== undefined) {
    view.setUint32(12, openClaims, true);
    view.setUint32(32, claim.generation, true);
    view.setUint32(36, claim.groupEpoch, true);
    view.setUint32(40, claim.id[0], true);
    view.setUint32(44, claim.id[1], true);
  }
  const digits = volumeId.replaceAll("-", "");
  for (let index = 0; index < 16; index++) {
    bytes[16 + index] = Number.parseInt(digits.slice(2 * index, 2 * index + 2), 16);
  }
  return bytes;
}

/** The volume id of an open record, as a lower-case UUID. */
export function openVolumeId(record: Uint8Array): string {
  let digits = "";
  for (let index = 16; index < 32; index++) digits += record[index].toString(16).padStart(2, "0");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Undefined for an open that claims nothing. */
export function openClaim(record: Uint8Array): Writer | undefined {
  const view = new DataView(record.buffer, record.byteOffset, requestBytes);
  if ((view.getUint32(12, true) & openClaims) === 0) return undefined;
  return {
    generation: view.getUint32(32, true),
    groupEpoch: view.getUint32(36, true),
    id: [view.getUint32(40, true), view.getUint32(44, true)],
  };
}

export function encodeClose(handle: number): Uint8Array {
  const bytes = new Uint8Array(requestBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, closeOperation, true);
  view.setUint32(4, handle, true);
  return bytes;
}

export function encodeCompletion(tag: number, status: number): Uint8Array {
  const bytes = new Uint8Array(completionBytes);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, tag, true);
  view.setUint32(4, status, true);
  return bytes;
}

export interface Opened {
  readonly token: number;
  readonly status: number;
  readonly handle: number;
  readonly readOnly: boolean;
  readonly sizeBytes: number;
  /** Who has it, and what its group did and flushed last, as this store knows it. */
  readonly generation: number;
  readonly groupEpoch: number;
  readonly version: Version;
  readonly flushed: Version;
  /** It has a part of the operation after that version. */
  readonly partly: boolean;
}

export function encodeOpened(opened: Opened): Uint8Array {
  const bytes = new Uint8Array(openedBytes);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, -1 - opened.token, true);
  view.setUint32(4, opened.status, true);
  view.setUint32(16, opened.handle, true);
  const flags =
    (opened.readOnly ? openedFlag.readOnly : 0) | (opened.partly ? openedFlag.partly : 0);
  view.setUint32(20, flags, true);
  view.setBigUint64(24, BigInt(opened.sizeBytes), true);
  view.setUint32(32, opened.generation, true);
  view.setUint32(36, opened.groupEpoch, true);
  view.setUint32(40, opened.version.generation, true);
  view.setUint32(44, opened.flushed.generation, true);
  view.setBigUint64(48, BigInt(opened.version.sequence), true);
  view.setBigUint64(56, BigInt(opened.flushed.sequence), true);
  return bytes;
}

/** Of a record whose first word is negative. */
export function decodeOpened(bytes: Uint8Array): Opened {
  const view = new DataView(bytes.buffer, bytes.byteOffset, openedBytes);
  return {
    token: -1 - view.getInt32(0, true),
    status: view.getUint32(4, true),
    handle: view.getUint32(16, true),
    readOnly: (view.getUint32(20, true) & openedFlag.readOnly) !== 0,
    partly: (view.getUint32(20, true) & openedFlag.partly) !== 0,
    sizeBytes: Number(view.getBigUint64(24, true)),
    generation: view.getUint32(32, true),
    groupEpoch: view.getUint32(36, true),
    version: getVersion(view, 40, 48),
    flushed: getVersion(view, 44, 56),
  };
}

/** At `offset` of `into`, which has room for it. */
export function encodeDone(into: Uint8Array, offset: number, done: Operation): void {
  const view = new DataView(into.buffer, into.byteOffset + offset, doneBytes);
  const flags = (done.discards ? doneFlag.discards : 0) | (done.partly ? doneFlag.partly : 0);
  view.setUint32(0, done.generation, true);
  view.setUint32(4, flags, true);
  view.setBigUint64(8, BigInt(done.sequence), true);
  view.setBigUint64(16, BigInt(done.sector), true);
  view.setBigUint64(24, BigInt(done.sectors), true);
}

/** Undefined past the last one. */
export function decodeDone(from: Uint8Array, offset: number): Operation | undefined {
  const view = new DataView(from.buffer, from.byteOffset + offset, doneBytes);
  const version = getVersion(view, 0, 8);
  if (version.generation === 0) return undefined;
  const flags = view.getUint32(4, true);
  return {
    ...version,
    sector: Number(view.getBigUint64(16, true)),
    sectors: Number(view.getBigUint64(24, true)),
    discards: (flags & doneFlag.discards) !== 0,
    partly: (flags & doneFlag.partly) !== 0,
  };
}

function getVersion(view: DataView, generationAt: number, sequenceAt: number): Version {
  return {
    generation: view.getUint32(generationAt, true),
    sequence: Number(view.getBigUint64(sequenceAt, true)),
  };
}
