/**
 * What network-boot firmware says about itself, and what it must be told: PXE 2.1, RFC 4578, UEFI
 * HTTP boot (UEFI 2.10 section 24.7.3), iPXE.
 */
import type { DhcpMessage } from "./message.ts";
import {
  asciiText,
  formatOptions,
  optionCode,
  parseOptions,
  readUint16,
  uint8,
} from "./options.ts";

/** Option 93 values, IANA "Processor Architecture Types". */
export const architecture = {
  bios: 0,
  uefiIa32: 6,
  uefiX64Bc: 7,
  uefiX64: 9,
  uefiArm64: 11,
  httpIa32: 15,
  httpX64: 16,
  httpArm64: 19,
} as const;

const architectureNames: Readonly<Record<number, string>> = {
  [architecture.bios]: "bios",
  [architecture.uefiIa32]: "uefi-ia32",
  [architecture.uefiX64Bc]: "uefi-x64",
  [architecture.uefiX64]: "uefi-x64",
  [architecture.uefiArm64]: "uefi-arm64",
  [architecture.httpIa32]: "uefi-ia32-http",
  [architecture.httpX64]: "uefi-x64-http",
  [architecture.httpArm64]: "uefi-arm64-http",
};

/** `bios`, `uefi-x64`, `uefi-x64-http`, ..., or `arch-N` for one without a name here. */
export function archName(value: number): string {
  return architectureNames[value] ?? `arch-${value}`;
}

export interface PxeClient {
  /** First of option 93. iPXE and EDK2 send one. */
  readonly arch: number;
  /** `PXEClient` or `HTTPClient`: the class of option 60, echoed in replies. */
  readonly vendor: "PXEClient" | "HTTPClient";
  readonly ipxe: boolean;
  /** Canonical text of option 97 type 0. */
  readonly uuid?: string;
  /** Option 97 as received, to be echoed. */
  readonly machineId?: Uint8Array;
}

/** User classes of option 77 (RFC 3004), or the raw text of clients such as iPXE that send it bare. */
export function userClasses(value: Uint8Array): string[] {
  const classes: string[] = [];
  let at = 0;
  while (at < value.length) {
    const length = value[at];
    if (length === 0 || at + 1 + length > value.length) return [asciiText(value)];
    classes.push(asciiText(value.subarray(at + 1, at + 1 + length)));
    at += 1 + length;
  }
  return classes;
}

export function isIpxe(message: DhcpMessage): boolean {
  const userClass = message.options.get(optionCode.userClass);
  return (
    message.options.has(optionCode.ipxe) ||
    (userClass !== undefined && userClasses(userClass).includes("iPXE"))
  );
}

/**
 * The PXE or HTTP-boot side of a client's message; undefined unless options 60 and 93 are there
 * and well formed. Option 94 is required of PXE clients only: EDK2's HTTP boot sends it too, but
 * others' don't have to.
 */
export function pxeClientOf(message: DhcpMessage): PxeClient | undefined {
  const vendorClass = asciiText(message.options.get(optionCode.vendorClass) ?? new Uint8Array());
  const arch = readUint16(message.options.get(optionCode.clientArchitecture));
  if (arch === undefined) return undefined;
  const vendor = (["PXEClient", "HTTPClient"] as const).find((name) =>
    vendorClass.startsWith(name),
  );
  if (vendor === undefined) return undefined;
  if (vendor === "PXEClient" && !message.options.has(optionCode.clientInterface)) return undefined;
  const machineId = message.options.get(optionCode.clientMachineId);
  const uuid = machineId === undefined ? undefined : uuidOf(machineId);
  return {
    arch,
    vendor,
    ipxe: isIpxe(message),
    ...(uuid === undefined ? {} : { uuid }),
    ...(machineId === undefined ? {} : { machineId }),
  };
}

/**
 * Option 97 type 0 as text. The first three fields are little-endian on the wire, as SMBIOS and
 * EFI keep them, so that the text equals what `dmidecode` and iPXE's `${uuid}` print. All zeros
 * and all ones mean that the board has none.
 */
export function uuidOf(value: Uint8Array): string | undefined {
  if (value.length !== 17 || value[0] !== 0) return undefined;
  const guid = value.subarray(1);
  if (guid.every((byte) => byte === 0) || guid.every((byte) => byte === 0xff)) return undefined;
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  const hex = order.map((index) => guid[index].toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Sub-options of option 43 for PXE clients (PXE 2.1 section 2.2.2). */
export const pxeOption = { discoveryControl: 6, bootItem: 71 } as const;

/**
 * Option 43 with PXE_DISCOVERY_CONTROL = 8: "boot the file named here, ask nobody else". Without
 * it EDK2 takes the offer for a BINL one and asks port 4011. A boot item asked for is echoed.
 */
export function pxeVendorOptions(request: DhcpMessage): Uint8Array {
  const asked = parseOptions(
    request.options.get(optionCode.vendorSpecific) ?? new Uint8Array(),
  ).options.get(pxeOption.bootItem);
  const inner = new Map([[pxeOption.discoveryControl as number, uint8(8)]]);
  if (asked !== undefined) inner.set(pxeOption.bootItem, asked.slice(0, 4));
  return Uint8Array.of(...formatOptions(inner), optionCode.end);
}

/** iPXE's option 176 in 175: don't wait for proxyDHCP offers. Saves seconds in server mode. */
export function ipxeNoProxy(): Uint8Array {
  return formatOptions(new Map([[0xb0, uint8(1)]]));
}
