/**
 * Text of log-in and text PDUs: `key=value` pairs, each ended by a zero byte (RFC 7143 section 6.1).
 * Bytes are taken as Latin-1 so that none is lost.
 */

/** Section 6.1: keys of at most 63 bytes; values of 255 unless the key says else. */
const maxKeyBytes = 63;
export const maxTextBytes = 16 * 1024;

export type TextFault = "tooLong" | "noEquals" | "badKey" | "repeatedKey" | "unterminated";
export type TextParse =
  | { readonly ok: true; readonly pairs: ReadonlyMap<string, string> }
  | { readonly ok: false; readonly fault: TextFault };

const keyPattern = /^[A-Za-z0-9.\-+@_#]+$/;

/** Empty strings between terminators are skipped, as initiators pad with zeros. */
export function parseText(bytes: Uint8Array): TextParse {
  if (bytes.length > maxTextBytes) return { ok: false, fault: "tooLong" };
  const pairs = new Map<string, string>();
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
  if (text.length > 0 && !text.endsWith("\0")) return { ok: false, fault: "unterminated" };
  for (const pair of text.split("\0")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    if (equals < 0) return { ok: false, fault: "noEquals" };
    const key = pair.slice(0, equals);
    if (key.length > maxKeyBytes || !keyPattern.test(key)) return { ok: false, fault: "badKey" };
    if (pairs.has(key)) return { ok: false, fault: "repeatedKey" };
    pairs.set(key, pair.slice(equals + 1));
  }
  return { ok: true, pairs };
}

/** The other way. Pairs rather than a map: SendTargets repeats keys. */
export function formatText(pairs: Iterable<readonly [key: string, value: string]>): Uint8Array {
  let text = "";
  for (const [key, value] of pairs) text += `${key}=${value}\0`;
  return Buffer.from(text, "latin1");
}

/** Binary value (section 6.1): `0x` hex or `0b` base64. Undefined if unreadable or empty. */
export function parseBinary(value: string): Uint8Array | undefined {
  const kind = value.slice(0, 2).toLowerCase();
  const digits = value.slice(2);
  if (kind === "0x" && /^(?:[0-9a-f]{2})+$/i.test(digits)) return Buffer.from(digits, "hex");
  if (kind === "0x" && /^[0-9a-f]+$/i.test(digits)) return Buffer.from(`0${digits}`, "hex");
  if (kind === "0b" && /^[A-Za-z0-9+/]+=*$/.test(digits)) return Buffer.from(digits, "base64");
  return undefined;
}

export function formatBinary(bytes: Uint8Array): string {
  return `0x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}`;
}

/** Decimal or `0x` hex integer; undefined if unreadable or outside min..max. */
export function parseNumber(value: string, min: number, max: number): number | undefined {
  if (!/^(?:\d{1,10}|0[xX][0-9a-fA-F]{1,8})$/.test(value)) return undefined;
  const number = Number(value);
  return number >= min && number <= max ? number : undefined;
}
