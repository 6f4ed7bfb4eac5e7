/**
 * The Network Block Device protocol, fixed newstyle, simple replies
 * (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). All integers big-endian.
 *
 *   server                                          client
 *   NBDMAGIC IHAVEOPT, handshake flags       --->
 *                                            <---   client flags
 *                                            <---   IHAVEOPT, option, length, data   (repeated)
 *   option reply: magic, option, type, data  --->   (GO: INFO_EXPORT, INFO_BLOCK_SIZE, ACK)
 *                                            <---   request: magic, flags, type, cookie, offset, length
 *   reply: magic, error, cookie [, data]     --->
 *                                            <---   DISC
 */
import { KeelsonError } from "#lib/model/errors.ts";

export const greetingBytes = 18;
export const optionHeaderBytes = 16;
export const optionReplyHeaderBytes = 20;
export const requestBytes = 28;
export const replyBytes = 16;
/** Longest data of an option that is read: a name (4096) and a few information requests. */
export const maxOptionBytes = 8192;

const helloMagic = 0x4e42444d41474943n; // NBDMAGIC
const optionMagic = 0x49484156454f5054n; // IHAVEOPT
const optionReplyMagic = 0x0003e889045565a9n;
const requestMagic = 0x25609513;
const replyMagic = 0x67446698;

export const HandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;
export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
} as const;
export const OptionReply = {
  acknowledged: 1,
  info: 3,
  unsupported: 2 ** 31 + 1,
  policy: 2 ** 31 + 2,
  invalid: 2 ** 31 + 3,
  unknownExport: 2 ** 31 + 6,
  tooBig: 2 ** 31 + 9,
} as const;
export const InfoType = { export: 0, blockSize: 3 } as const;
export const TransmissionFlag = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendForceUnitAccess: 8,
  sendTrim: 32,
  sendWriteZeroes: 64,
} as const;
export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  writeZeroes: 6,
} as const;
export const CommandFlag = { forceUnitAccess: 1, noHole: 2 } as const;
export const NbdError = {
  none: 0,
  notPermitted: 1,
  io: 5,
  noMemory: 12,
  invalid: 22,
  noSpace: 28,
  shutdown: 108,
} as const;
export type NbdError = (typeof NbdError)[keyof typeof NbdError];

export interface OptionHeader {
  readonly option: number;
  readonly length: number;
}

export interface Request {
  readonly flags: number;
  readonly type: number;
  /** The client's, given back as it is. */
  readonly cookie: bigint;
  /** Bytes; may be past 2^53 in a hostile request, then Infinity. */
  readonly offset: number;
  readonly length: number;
}

export function encodeGreeting(): Uint8Array {
  const { bytes, view } = buffer(greetingBytes);
  view.setBigUint64(0, helloMagic);
  view.setBigUint64(8, optionMagic);
  view.setUint16(16, HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes);
  return bytes;
}

/** The client's flags after the greeting. PROTOCOL if it sets one that was not offered. */
export function decodeClientFlags(bytes: Uint8Array): { noZeroes: boolean } {
  const flags = viewOf(bytes).getUint32(0);
  if ((flags & ~3) !== 0 || (flags & HandshakeFlag.fixedNewstyle) === 0) {
    throw malformed(`client flags ${flags}`);
  }
  return { noZeroes: (flags & HandshakeFlag.noZeroes) !== 0 };
}

export function encodeOption(option: number, data: Uint8Array): Uint8Array {
  const { bytes, view } = buffer(optionHeaderBytes + data.length);
  view.setBigUint64(0, optionMagic);
  view.setUint32(8, option);
  view.setUint32(12, data.length);
  bytes.set(data, optionHeaderBytes);
  return bytes;
}

export function decodeOptionHeader(bytes: Uint8Array): OptionHeader {
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== optionMagic) throw malformed("no option where one must be");
  return { option: view.getUint32(8), length: view.getUint32(12) };
}

export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const { bytes, view } = buffer(optionReplyHeaderBytes + data.length);
  view.setBigUint64(0, optionReplyMagic);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, data.length);
  bytes.set(data, optionReplyHeaderBytes);
  return bytes;
}

/** Data of OPT_GO and OPT_INFO: name length, name, count, information types. */
export function encodeGo(name: string, types: readonly number[] = []): Uint8Array {
  const text = new TextEncoder().encode(name);
  const { bytes, view } = buffer(4 + text.length + 2 + 2 * types.length);
  view.setUint32(0, text.length);
  bytes.set(text, 4);
  view.setUint16(4 + text.length, types.length);
  types.forEach((type, i) => {
    view.setUint16(6 + text.length + 2 * i, type);
  });
  return bytes;
}

/** The export's name, or undefined if the data is malformed. */
export function decodeGo(data: Uint8Array): { name: string; types: number[] } | undefined {
  if (data.length < 6) return undefined;
  const view = viewOf(data);
  const length = view.getUint32(0);
  if (length > data.length - 6) return undefined;
  const count = view.getUint16(4 + length);
  if (data.length !== 6 + length + 2 * count) return undefined;
  return {
    name: new TextDecoder().decode(data.subarray(4, 4 + length)),
    types: Array.from({ length: count }, (_, i) => view.getUint16(6 + length + 2 * i)),
  };
}

export function encodeExportInfo(sizeBytes: number, flags: number): Uint8Array {
  const { bytes, view } = buffer(12);
  view.setUint16(0, InfoType.export);
  view.setBigUint64(2, BigInt(sizeBytes));
  view.setUint16(10, flags);
  return bytes;
}

export function encodeBlockSizeInfo(
  minimum: number,
  preferred: number,
  maximum: number,
): Uint8Array {
  const { bytes, view } = buffer(14);
  view.setUint16(0, InfoType.blockSize);
  view.setUint32(2, minimum);
  view.setUint32(6, preferred);
  view.setUint32(10, maximum);
  return bytes;
}

/** Answer to OPT_EXPORT_NAME: size, flags, and 124 zeroes unless the client declined them. */
export function encodeExport(sizeBytes: number, flags: number, noZeroes: boolean): Uint8Array {
  const { bytes, view } = buffer(noZeroes ? 10 : 134);
  view.setBigUint64(0, BigInt(sizeBytes));
  view.setUint16(8, flags);
  return bytes;
}

export function encodeRequest(request: Request): Uint8Array {
  const { bytes, view } = buffer(requestBytes);
  view.setUint32(0, requestMagic);
  view.setUint16(4, request.flags);
  view.setUint16(6, request.type);
  view.setBigUint64(8, request.cookie);
  view.setBigUint64(16, BigInt(request.offset));
  view.setUint32(24, request.length);
  return bytes;
}

export function decodeRequest(bytes: Uint8Array): Request {
  const view = viewOf(bytes);
  if (view.getUint32(0) !== requestMagic) throw malformed("no request where one must be");
  const offset = view.getBigUint64(16);
  return {
    flags: view.getUint16(4),
    type: view.getUint16(6),
    cookie: view.getBigUint64(8),
    offset: offset > BigInt(Number.MAX_SAFE_INTEGER) ? Number.POSITIVE_INFINITY : Number(offset),
    length: view.getUint32(24),
  };
}

/** A simple reply, with room for `dataBytes` after its header. */
export function encodeReply(cookie: bigint, error: NbdError, dataBytes = 0): Uint8Array {
  const { bytes, view } = buffer(replyBytes + dataBytes);
  view.setUint32(0, replyMagic);
  view.setUint32(4, error);
  view.setBigUint64(8, cookie);
  return bytes;
}

export function decodeReply(bytes: Uint8Array): { cookie: bigint; error: number } {
  const view = viewOf(bytes);
  if (view.getUint32(0) !== replyMagic) throw malformed("no reply where one must be");
  return { error: view.getUint32(4), cookie: view.getBigUint64(8) };
}

function buffer(length: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(length);
  return { bytes, view: new DataView(bytes.buffer) };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function malformed(what: string): KeelsonError {
  return new KeelsonError("PROTOCOL", `NBD: ${what}.`, { operation: "speak NBD" });
}
