/**
 * TFTP packets: RFC 1350, options of RFC 2347, blksize (2348), timeout and tsize (2349),
 * windowsize (7440).
 *
 *   1 RRQ    file NUL mode NUL (option NUL value NUL)*
 *   3 DATA   block(2) bytes      a block shorter than blksize is the last
 *   4 ACK    block(2)
 *   5 ERROR  code(2) text NUL
 *   6 OACK   (option NUL value NUL)*
 *
 *   client                     server
 *   RRQ blksize=1432 tsize=0 -->
 *                            <-- OACK blksize=1432 tsize=N    (or DATA 1 if no option is known)
 *   ACK 0                    -->
 *                            <-- DATA 1 .. DATA windowsize
 *   ACK windowsize           -->  ...
 */
export const opcode = { rrq: 1, wrq: 2, data: 3, ack: 4, error: 5, oack: 6 } as const;

/** RFC 1350 appendix, RFC 2347 section 3 (8). */
export const errorCode = {
  undefined: 0,
  fileNotFound: 1,
  accessViolation: 2,
  diskFull: 3,
  illegalOperation: 4,
  unknownTransfer: 5,
  fileExists: 6,
  noSuchUser: 7,
  optionRefused: 8,
} as const;

export type Packet =
  | {
      readonly type: "rrq" | "wrq";
      readonly file: string;
      readonly mode: string;
      /** Names in lower case, first of each. */
      readonly options: ReadonlyMap<string, string>;
    }
  | { readonly type: "data"; readonly block: number; readonly bytes: Uint8Array }
  | { readonly type: "ack"; readonly block: number }
  | { readonly type: "error"; readonly code: number; readonly text: string }
  | { readonly type: "oack"; readonly options: ReadonlyMap<string, string> };

export type DecodedPacket = { readonly packet: Packet } | { readonly malformed: string };

/** Largest request taken: RFC 2347 section 2 says 512. */
export const longestRequest = 512;

export function decodePacket(bytes: Uint8Array): DecodedPacket {
  if (bytes.length < 4) return { malformed: "too-short" };
  const word = (bytes[2] << 8) | bytes[3];
  switch ((bytes[0] << 8) | bytes[1]) {
    case opcode.rrq:
    case opcode.wrq: {
      if (bytes.length > longestRequest) return { malformed: "request-too-long" };
      const fields = strings(bytes.subarray(2));
      if (fields === undefined || fields.length < 2) return { malformed: "bad-request" };
      const [file, mode, ...rest] = fields;
      const type = bytes[1] === opcode.rrq ? "rrq" : "wrq";
      return { packet: { type, file, mode: mode.toLowerCase(), options: pairs(rest) } };
    }
    case opcode.data:
      return { packet: { type: "data", block: word, bytes: bytes.slice(4) } };
    case opcode.ack:
      return { packet: { type: "ack", block: word } };
    case opcode.error:
      return { packet: { type: "error", code: word, text: strings(bytes.subarray(4))?.[0] ?? "" } };
    case opcode.oack: {
      const fields = strings(bytes.subarray(2));
      // One that acknowledges nothing is no OACK either.
      if (fields === undefined || fields.length < 2) return { malformed: "bad-oack" };
      return { packet: { type: "oack", options: pairs(fields) } };
    }
    default:
      return { malformed: "unknown-opcode" };
  }
}

/** NUL-ended strings; undefined when the last isn't ended. */
function strings(bytes: Uint8Array): string[] | undefined {
  const found: string[] = [];
  let text = "";
  for (const byte of bytes) {
    if (byte === 0) {
      found.push(text);
      text = "";
    } else text += String.fromCharCode(byte);
  }
  return text === "" ? found : undefined;
}

function pairs(fields: readonly string[]): Map<string, string> {
  const options = new Map<string, string>();
  for (let index = 0; index + 1 < fields.length; index += 2) {
    const name = fields[index].toLowerCase();
    if (!options.has(name)) options.set(name, fields[index + 1]);
  }
  return options;
}

export function encodePacket(packet: Packet): Uint8Array {
  switch (packet.type) {
    case "rrq":
    case "wrq":
      return withStrings(
        [0, opcode[packet.type]],
        [packet.file, packet.mode, ...[...packet.options].flat()],
      );
    case "data": {
      const bytes = new Uint8Array(4 + packet.bytes.length);
      bytes.set([0, opcode.data, packet.block >> 8, packet.block & 255]);
      bytes.set(packet.bytes, 4);
      return bytes;
    }
    case "ack":
      return Uint8Array.of(0, opcode.ack, packet.block >> 8, packet.block & 255);
    case "error":
      return withStrings([0, opcode.error, packet.code >> 8, packet.code & 255], [packet.text]);
    case "oack":
      return withStrings([0, opcode.oack], [...packet.options].flat());
  }
}

function withStrings(head: readonly number[], fields: readonly string[]): Uint8Array {
  const tail = fields.flatMap((field) => [
    ...Array.from(field, (character) => character.charCodeAt(0) & 255),
    0,
  ]);
  return Uint8Array.from([...head, ...tail]);
}

export interface ReadOptions {
  /** Bytes a block: 8 to 65 464 (RFC 2348). */
  readonly blockBytes: number;
  /** Blocks before an ACK: 1 to 65 535 (RFC 7440). */
  readonly windowBlocks: number;
  /** First time-out, if the client named one: 1 to 255 s (RFC 2349). */
  readonly timeoutSeconds?: number;
  /** What to acknowledge; empty means that the transfer starts with DATA 1. */
  readonly accepted: ReadonlyMap<string, string>;
}

/**
 * What a server grants of a read request's options. An option out of its range is left out, as RFC
 * 2347 section 3 lets a server do; blksize and windowsize are lowered to `limits`. `tsize` is told
 * only to those who ask, and only in octet mode: EFI fails on one it didn't ask for.
 */
export function negotiate(
  options: ReadonlyMap<string, string>,
  sizeBytes: number,
  limits: { readonly blockBytes: number; readonly windowBlocks: number },
): ReadOptions {
  const accepted = new Map<string, string>();
  let blockBytes = 512;
  let windowBlocks = 1;
  let timeoutSeconds: number | undefined;
  for (const [name, text] of options) {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
    if (name === "blksize" && value >= 8 && value <= 65_464) {
      blockBytes = Math.min(value, limits.blockBytes);
      accepted.set(name, String(blockBytes));
    } else if (name === "windowsize" && value >= 1 && value <= 65_535) {
      windowBlocks = Math.min(value, limits.windowBlocks);
      accepted.set(name, String(windowBlocks));
    } else if (name === "timeout" && value >= 1 && value <= 255) {
      timeoutSeconds = value;
      accepted.set(name, text);
    } else if (name === "tsize") {
      accepted.set(name, String(sizeBytes));
    }
  }
  const base = { blockBytes, windowBlocks, accepted };
  return timeoutSeconds === undefined ? base : { ...base, timeoutSeconds };
}
