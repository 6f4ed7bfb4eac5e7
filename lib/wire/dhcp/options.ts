/**
 * DHCP options: code, length, value (RFC 2132 section 2), with the codes that netboot reads or
 * writes. A value longer than 255 bytes is split over several options of one code, and options of
 * one code are concatenated when read (RFC 3396).
 */
export const optionCode = {
  pad: 0,
  subnetMask: 1,
  router: 3,
  dns: 6,
  hostName: 12,
  domainName: 15,
  broadcastAddress: 28,
  vendorSpecific: 43,
  requestedAddress: 50,
  leaseTime: 51,
  overload: 52,
  messageType: 53,
  serverIdentifier: 54,
  parameterRequestList: 55,
  errorMessage: 56,
  maximumMessageSize: 57,
  renewalTime: 58,
  rebindingTime: 59,
  vendorClass: 60,
  clientIdentifier: 61,
  tftpServerName: 66,
  bootFileName: 67,
  userClass: 77,
  /** RFC 3046: a relay's; echoed unchanged as the last option. */
  relayAgent: 82,
  /** RFC 4578 section 2.1 */
  clientArchitecture: 93,
  /** RFC 4578 section 2.2 */
  clientInterface: 94,
  /** RFC 4578 section 2.3 */
  clientMachineId: 97,
  /** iPXE's own encapsulated options. */
  ipxe: 175,
  end: 255,
} as const;

export type Options = ReadonlyMap<number, Uint8Array>;

export interface ParsedOptions {
  readonly options: Map<number, Uint8Array>;
  /** An option claimed more bytes than there were: it and what follows is lost. */
  readonly truncated: boolean;
}

/** Reads a run of options into `into`, concatenating repeated codes. Never throws. */
export function parseOptions(
  bytes: Uint8Array,
  into: Map<number, Uint8Array> = new Map(),
): ParsedOptions {
  let at = 0;
  while (at < bytes.length) {
    const code = bytes[at++];
    if (code === optionCode.pad) continue;
    if (code === optionCode.end) break;
    const length = bytes[at++];
    if (length === undefined || at + length > bytes.length)
      return { options: into, truncated: true };
    const value = bytes.slice(at, at + length);
    const before = into.get(code);
    into.set(code, before === undefined ? value : concatenate([before, value]));
    at += length;
  }
  return { options: into, truncated: false };
}

/**
 * Writes options in the order given, without the end marker. The relay's option goes last as RFC
 * 3046 section 2.1 asks. An empty value is written as length 0.
 */
export function formatOptions(options: Options): Uint8Array {
  const parts: Uint8Array[] = [];
  const write = (code: number, value: Uint8Array) => {
    let at = 0;
    do {
      const piece = value.subarray(at, at + 255);
      parts.push(Uint8Array.of(code, piece.length), piece);
      at += 255;
    } while (at < value.length);
  };
  for (const [code, value] of options) if (code !== optionCode.relayAgent) write(code, value);
  const relay = options.get(optionCode.relayAgent);
  if (relay !== undefined) write(optionCode.relayAgent, relay);
  return concatenate(parts);
}

export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Printable ASCII of `text` as bytes; other characters become `?`. */
export function asciiBytes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => {
    const code = character.charCodeAt(0);
    return code >= 0x20 && code < 0x7f ? code : 0x3f;
  });
}

/** Bytes up to the first NUL as text; anything not printable becomes `?`. */
export function asciiText(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    if (byte === 0) break;
    text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "?";
  }
  return text;
}

export function uint8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

export function uint32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

export function readUint16(bytes: Uint8Array | undefined): number | undefined {
  return bytes === undefined || bytes.length < 2 ? undefined : bytes[0] * 256 + bytes[1];
}

export function readUint32(bytes: Uint8Array | undefined): number | undefined {
  if (bytes === undefined || bytes.length < 4) return undefined;
  return ((bytes[0] << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3]) >>> 0;
}
