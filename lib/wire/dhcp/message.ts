/**
 * A DHCP message (RFC 2131 section 2):
 *
 *   0  op(1) htype(1) hlen(1) hops(1)    4  xid(4)
 *   8  secs(2) flags(2)                 12  ciaddr(4) yiaddr(4) siaddr(4) giaddr(4)
 *  28  chaddr(16)    44  sname(64)     108  file(128)
 * 236  magic cookie 63 82 53 63        240  options ... 255
 *
 * Decoding takes any bytes: what can't be a message gives a reason, what can is read as far as it
 * goes, since firmware in the field sends options that aren't well formed.
 */
import type { MacAddress } from "#lib/model/ids.ts";
import { formatMac, type Ipv4, unspecified } from "./address.ts";
import {
  asciiBytes,
  asciiText,
  formatOptions,
  type Options,
  optionCode,
  parseOptions,
  readUint32,
} from "./options.ts";

export const bootRequest = 1;
export const bootReply = 2;
export const ethernet = 1;
export const broadcastFlag = 0x8000;

/** Option 53, RFC 2132 section 9.6. */
export const messageType = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
  inform: 8,
} as const;

export interface DhcpMessage {
  readonly op: number;
  readonly htype: number;
  readonly hlen: number;
  readonly hops: number;
  readonly xid: number;
  readonly secs: number;
  readonly flags: number;
  readonly ciaddr: Ipv4;
  readonly yiaddr: Ipv4;
  readonly siaddr: Ipv4;
  readonly giaddr: Ipv4;
  /** Always 16 bytes. */
  readonly chaddr: Uint8Array;
  readonly sname: string;
  readonly file: string;
  readonly options: Options;
}

export type Decoded =
  | { readonly message: DhcpMessage; readonly truncatedOptions: boolean }
  | { readonly malformed: MalformedReason };

export type MalformedReason = "too-short" | "no-magic-cookie" | "bad-op" | "bad-hardware-length";

const headerBytes = 240;
const magicCookie = 0x63825363;
/** Some clients and relays drop replies below BOOTP's size (RFC 1542 section 2.1). */
const leastReplyBytes = 300;

export function decodeMessage(bytes: Uint8Array): Decoded {
  if (bytes.length < headerBytes) return { malformed: "too-short" };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(236) !== magicCookie) return { malformed: "no-magic-cookie" };
  const op = bytes[0];
  if (op !== bootRequest && op !== bootReply) return { malformed: "bad-op" };
  if (bytes[2] > 16) return { malformed: "bad-hardware-length" };
  const sname = bytes.slice(44, 108);
  const file = bytes.slice(108, 236);
  let { options, truncated } = parseOptions(bytes.subarray(headerBytes));
  // Option 52: `file`, then `sname`, hold options too (RFC 3396 section 5 fixes this order).
  const overload = options.get(optionCode.overload)?.[0] ?? 0;
  for (const [bit, field] of [
    [1, file],
    [2, sname],
  ] as const) {
    if ((overload & bit) === 0) continue;
    truncated = parseOptions(field, options).truncated || truncated;
  }
  const message: DhcpMessage = {
    op,
    htype: bytes[1],
    hlen: bytes[2],
    hops: bytes[3],
    xid: view.getUint32(4),
    secs: view.getUint16(8),
    flags: view.getUint16(10),
    ciaddr: view.getUint32(12) as Ipv4,
    yiaddr: view.getUint32(16) as Ipv4,
    siaddr: view.getUint32(20) as Ipv4,
    giaddr: view.getUint32(24) as Ipv4,
    chaddr: bytes.slice(28, 44),
    sname: (overload & 2) === 0 ? asciiText(sname) : "",
    file: (overload & 1) === 0 ? asciiText(file) : "",
    options,
  };
  return { message, truncatedOptions: truncated };
}

/** RangeError if `sname` (63 characters) or `file` (127) doesn't fit. */
export function encodeMessage(message: DhcpMessage): Uint8Array {
  const options = formatOptions(message.options);
  const bytes = new Uint8Array(Math.max(leastReplyBytes, headerBytes + options.length + 1));
  const view = new DataView(bytes.buffer);
  bytes.set([message.op, message.htype, message.hlen, message.hops]);
  view.setUint32(4, message.xid);
  view.setUint16(8, message.secs);
  view.setUint16(10, message.flags);
  view.setUint32(12, message.ciaddr);
  view.setUint32(16, message.yiaddr);
  view.setUint32(20, message.siaddr);
  view.setUint32(24, message.giaddr);
  bytes.set(message.chaddr.subarray(0, 16), 28);
  putText(bytes, 44, 64, message.sname);
  putText(bytes, 108, 128, message.file);
  view.setUint32(236, magicCookie);
  bytes.set(options, headerBytes);
  bytes[headerBytes + options.length] = optionCode.end;
  return bytes;
}

function putText(bytes: Uint8Array, at: number, size: number, text: string): void {
  const value = asciiBytes(text);
  if (value.length >= size) {
    throw new RangeError(`'${text}' is longer than the ${size - 1} characters of its field`);
  }
  bytes.set(value, at);
}

/** The longest `file` that fits its field. */
export const longestFile = 127;

/** The reply to `request`: its transaction, relay and hardware address (RFC 2131 section 4.3.1). */
export function replyTo(request: DhcpMessage, options: Options): DhcpMessage {
  const withRelay = new Map(options);
  // RFC 3046 section 2.2: the relay's option comes back as it was.
  const relay = request.options.get(optionCode.relayAgent);
  if (relay !== undefined) withRelay.set(optionCode.relayAgent, relay);
  return {
    op: bootReply,
    htype: request.htype,
    hlen: request.hlen,
    hops: 0,
    xid: request.xid,
    secs: 0,
    flags: request.flags,
    ciaddr: unspecified,
    yiaddr: unspecified,
    siaddr: unspecified,
    giaddr: request.giaddr,
    chaddr: request.chaddr,
    sname: "",
    file: "",
    options: withRelay,
  };
}

/** Option 53; undefined when absent (plain BOOTP) or out of range. */
export function typeOf(message: DhcpMessage): number | undefined {
  const value = message.options.get(optionCode.messageType)?.[0];
  return value !== undefined && value >= 1 && value <= 8 ? value : undefined;
}

/** The client's Ethernet address; undefined for other hardware or an all-zero address. */
export function macOf(message: DhcpMessage): MacAddress | undefined {
  if (message.htype !== ethernet || message.hlen !== 6) return undefined;
  const mac = message.chaddr.subarray(0, 6);
  return mac.every((byte) => byte === 0) ? undefined : formatMac(mac);
}

export function addressOption(message: DhcpMessage, code: number): Ipv4 | undefined {
  return readUint32(message.options.get(code)) as Ipv4 | undefined;
}
