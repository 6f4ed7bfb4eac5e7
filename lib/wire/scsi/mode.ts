/** MODE SENSE and MODE SELECT pages of a disk (SPC-4 section 7.5, SBC-3 section 6.5). */
import { writeU16, writeU32 } from "../iscsi/layout.ts";

export const ModePage = {
  readWriteErrorRecovery: 0x01,
  disconnectReconnect: 0x02,
  caching: 0x08,
  control: 0x0a,
  informationalExceptions: 0x1c,
  all: 0x3f,
} as const;

export interface ModeState {
  /** Software write protection: the initiator's own, beside a read-only export. */
  softwareWriteProtect: boolean;
  descriptorSense: boolean;
}

/** Page control of MODE SENSE: what of a page is asked for. */
export const PageControl = { current: 0, changeable: 1, default: 2, saved: 3 } as const;

function pageOf(code: number, control: number, state: ModeState): Uint8Array | undefined {
  const changeable = control === PageControl.changeable;
  const current = control === PageControl.current || control === PageControl.saved;
  switch (code) {
    case ModePage.readWriteErrorRecovery: {
      const page = new Uint8Array(12);
      page.set([code, 10]);
      if (!changeable) page[2] = 0xc0; // AWRE, ARRE
      return page;
    }
    case ModePage.disconnectReconnect: {
      const page = new Uint8Array(16);
      page.set([code, 14]);
      return page;
    }
    case ModePage.caching: {
      const page = new Uint8Array(20);
      page.set([code, 18]);
      if (!changeable) page[2] = 0x04; // WCE: volatile until SYNCHRONIZE CACHE or FUA
      return page;
    }
    case ModePage.control: {
      const page = new Uint8Array(12);
      page.set([code, 10]);
      if (changeable) {
        page[4] = 0x08; // SWP
        return page;
      }
      page[3] = 0x10; // unrestricted reordering
      if (current && state.softwareWriteProtect) page[4] = 0x08;
      writeU16(page, 8, 0xffff); // busy timeout: unlimited
      return page;
    }
    case ModePage.informationalExceptions: {
      const page = new Uint8Array(12);
      page.set([code, 10]);
      return page;
    }
    default:
      return undefined;
  }
}

const everyPage = [
  ModePage.readWriteErrorRecovery,
  ModePage.disconnectReconnect,
  ModePage.caching,
  ModePage.control,
  ModePage.informationalExceptions,
];

export interface ModeSenseRequest {
  readonly ten: boolean;
  readonly pageCode: number;
  readonly subpage: number;
  readonly control: number;
  readonly disableBlockDescriptors: boolean;
  readonly longLba: boolean;
}

/** The whole answer, header first; undefined for a page that isn't there. */
export function modeSense(
  request: ModeSenseRequest,
  state: ModeState,
  writeProtected: boolean,
  blocks: number,
  blockBytes: number,
): Uint8Array | undefined {
  const { ten, pageCode, subpage, control } = request;
  const codes = pageCode === ModePage.all ? everyPage : [pageCode];
  if (subpage !== 0 && !(subpage === 0xff && pageCode === ModePage.all)) return undefined;
  const pages = codes.map((code) => pageOf(code, control, state));
  if (pages.some((page) => page === undefined)) return undefined;
  const descriptor = request.disableBlockDescriptors
    ? new Uint8Array(0)
    : blockDescriptor(blocks, blockBytes, ten && request.longLba);
  const header = new Uint8Array(ten ? 8 : 4);
  const body = Buffer.concat([descriptor, ...(pages as Uint8Array[])]);
  const deviceSpecific = (writeProtected ? 0x80 : 0) | 0x10; // WP, DPOFUA
  if (ten) {
    writeU16(header, 0, header.length - 2 + body.length);
    header[3] = deviceSpecific;
    header[4] = descriptor.length === 16 ? 1 : 0;
    writeU16(header, 6, descriptor.length);
  } else {
    header[0] = header.length - 1 + body.length;
    header[2] = deviceSpecific;
    header[3] = descriptor.length;
  }
  return Buffer.concat([header, body]);
}

function blockDescriptor(blocks: number, blockBytes: number, long: boolean): Uint8Array {
  if (long) {
    const bytes = new Uint8Array(16);
    writeU32(bytes, 0, Math.floor(blocks / 2 ** 32));
    writeU32(bytes, 4, blocks % 2 ** 32);
    writeU32(bytes, 12, blockBytes);
    return bytes;
  }
  const bytes = new Uint8Array(8);
  writeU32(bytes, 0, Math.min(blocks, 0xffffffff));
  writeU32(bytes, 4, blockBytes);
  return bytes;
}

export type ModeSelectResult =
  | { readonly ok: true; readonly next: ModeState; readonly changed: boolean }
  | { readonly ok: false; readonly fault: "length" | "field" };

/**
 * Applies a MODE SELECT list. Only SWP of the control page may change; any other page is taken if it
 * says what stands already.
 */
export function modeSelect(list: Uint8Array, ten: boolean, state: ModeState): ModeSelectResult {
  const headerBytes = ten ? 8 : 4;
  if (list.length === 0) return { ok: true, next: state, changed: false };
  if (list.length < headerBytes) return { ok: false, fault: "length" };
  const descriptorBytes = ten ? (list[6] << 8) | list[7] : list[3];
  let at = headerBytes + descriptorBytes;
  if (at > list.length) return { ok: false, fault: "length" };
  let next = state;
  while (at < list.length) {
    const code = list[at] & 0x3f;
    if ((list[at] & 0x40) !== 0) return { ok: false, fault: "field" };
    if (at + 2 > list.length) return { ok: false, fault: "length" };
    const length = 2 + list[at + 1];
    const standing = pageOf(code, PageControl.current, state);
    const changeable = pageOf(code, PageControl.changeable, state);
    if (standing === undefined || changeable === undefined) return { ok: false, fault: "field" };
    if (length !== standing.length) return { ok: false, fault: "field" };
    if (at + length > list.length) return { ok: false, fault: "length" };
    for (let index = 2; index < length; index++) {
      const differs = (list[at + index] ^ standing[index]) & ~changeable[index] & 0xff;
      if (differs !== 0) return { ok: false, fault: "field" };
    }
    if (code === ModePage.control) {
      next = { ...next, softwareWriteProtect: (list[at + 4] & 0x08) !== 0 };
    }
    at += length;
  }
  return {
    ok: true,
    next,
    changed: next.softwareWriteProtect !== state.softwareWriteProtect,
  };
}
