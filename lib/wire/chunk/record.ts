/**
 * The block protocol between a gateway and a store: what goes over the socket, and the records
 * that the shared-memory ring holds. Little-endian; every record is a multiple of 16 bytes.
 *
 *   gateway                                  store
 *   hello (64)                         --->
 *                                      <---  hello (64): version, mode, sizes; or why not
 *   open (64)                          --->
 *                                      <---  opened (16 + 16)
 *   request (64) [payload of a write]  --->                          inline mode: on this socket
 *                                      <---  completion (16) [payload of a good read]
 *
 * In ring mode requests and completions stand in shared memory (`ring.ts`), never on the socket;
 * the hello carries the memory from the gateway, and the store's answer the two eventfds.
 *
 *   hello     0 magic "KEELBLK1"    8 version      12 mode        16 entries
 *             20 payload bytes      24 refusal     28 zero
 *   request   0 operation           4 handle       8 tag          12 length in bytes
 *             16 first sector (64)  24 payload offset             28 flags     32 zero
 *   open      0 operation 100       4 zero         8 token        12 zero      16 volume id (16)
 *   close     0 operation 101       4 handle       8 zero
 *   completion 0 tag                4 status       8 zero
 *   opened    0 -1 - token          4 status       8 zero
 *             16 handle             20 flags: 1 read-only         24 size in bytes (64)
 */
export const helloBytes = 64;
export const requestBytes = 64;
export const completionBytes = 16;
export const openedBytes = 32;
export const requestWords = requestBytes / 4;
export const completionWords = completionBytes / 4;

export const protocolVersion = 1;
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
export const openedReadOnly = 1;

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
} as const;

export const minEntries = 2;
export const maxEntries = 4096;
export const minPayloadBytes = 1 << 20;
export const maxPayloadBytes = 1 << 28;

const magic = new TextEncoder().encode("KEELBLK1");
/** Sectors past this can't be counted exactly; none exist (2^53 bytes). */
const maxSectorHigh = 1 << 12;

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
): void {
  words[at] = operation;
  words[at + Request.handle] = handle;
  words[at + Request.tag] = tag;
  words[at + Request.lengthBytes] = lengthBytes;
  words[at + Request.sectorLow] = sector | 0;
  words[at + Request.sectorHigh] = Math.floor(sector / 2 ** 32);
  words[at + Request.payloadOffset] = payloadOffset;
  words[at + Request.flags] = flags;
}

/** First sector of the request at word `at`; -1 if it is past any that can exist. */
export function requestSector(words: Int32Array, at: number): number {
  const high = words[at + Request.sectorHigh] >>> 0;
  if (high >= maxSectorHigh) return -1;
  return high * 2 ** 32 + (words[at + Request.sectorLow] >>> 0);
}

export function encodeOpen(volumeId: string, token: number): Uint8Array {
  const bytes = new Uint8Array(requestBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, openOperation, true);
  view.setUint32(8, token, true);
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
}

export function encodeOpened(opened: Opened): Uint8Array {
  const bytes = new Uint8Array(openedBytes);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, -1 - opened.token, true);
  view.setUint32(4, opened.status, true);
  view.setUint32(16, opened.handle, true);
  view.setUint32(20, opened.readOnly ? openedReadOnly : 0, true);
  view.setBigUint64(24, BigInt(opened.sizeBytes), true);
  return bytes;
}

/** Of a record whose first word is negative. */
export function decodeOpened(bytes: Uint8Array): Opened {
  const view = new DataView(bytes.buffer, bytes.byteOffset, openedBytes);
  return {
    token: -1 - view.getInt32(0, true),
    status: view.getUint32(4, true),
    handle: view.getUint32(16, true),
    readOnly: (view.getUint32(20, true) & openedReadOnly) !== 0,
    sizeBytes: Number(view.getBigUint64(24, true)),
  };
}
