/** INQUIRY data and vital product data pages (SPC-4 section 6.4 and 7.8, SBC-3 section 6.6). */
import { writeU16, writeU32 } from "../iscsi/layout.ts";

/** What a disk says of itself. */
export interface UnitIdentity {
  /** 8 characters. */
  readonly vendor: string;
  /** 16 characters. */
  readonly product: string;
  /** 4 characters. */
  readonly revision: string;
  /** Unique and for ever the same for one volume: here the volume's id. */
  readonly serial: string;
  /** 16 bytes; an NAA 6 name is made of it. */
  readonly uuid: Uint8Array;
  /** The iSCSI target's name: its port is named after it. */
  readonly targetName: string;
}

function ascii(into: Uint8Array, at: number, width: number, text: string): void {
  for (let index = 0; index < width; index++) {
    const code = text.charCodeAt(index);
    into[at + index] = code >= 0x20 && code < 0x7f ? code : 0x20;
  }
}

/** Peripheral qualifier and type for a LUN that isn't there. */
export const noUnit = 0x7f;

/** Standard data: direct-access, SPC-4, CMDQUE. 96 bytes. `peripheral` 0, or `noUnit`. */
export function standardInquiry(identity: UnitIdentity, peripheral = 0): Uint8Array {
  const page = new Uint8Array(96);
  page[0] = peripheral;
  page[2] = 0x06; // SPC-4
  page[3] = 0x02 | 0x10; // response format 2, HiSup
  page[4] = page.length - 5;
  page[7] = 0x02; // CmdQue
  ascii(page, 8, 8, identity.vendor);
  ascii(page, 16, 16, identity.product);
  ascii(page, 32, 4, identity.revision);
  // Version descriptors: SAM-5, iSCSI, SPC-4, SBC-3.
  [0x00a0, 0x0960, 0x0460, 0x04c0].forEach((code, index) => {
    writeU16(page, 58 + 2 * index, code);
  });
  return page;
}

export const VpdPage = {
  supportedPages: 0x00,
  unitSerial: 0x80,
  deviceIdentification: 0x83,
  blockLimits: 0xb0,
  blockDeviceCharacteristics: 0xb1,
  logicalBlockProvisioning: 0xb2,
} as const;

const pageCodes = Object.values(VpdPage);

function page(code: number, body: Uint8Array, peripheral: number): Uint8Array {
  const bytes = new Uint8Array(4 + body.length);
  bytes[0] = peripheral;
  bytes[1] = code;
  writeU16(bytes, 2, body.length);
  bytes.set(body, 4);
  return bytes;
}

export interface BlockLimits {
  readonly maxTransferBlocks: number;
  readonly optimalTransferBlocks: number;
  readonly maxCompareAndWriteBlocks: number;
  readonly maxUnmapBlocks: number;
  readonly maxUnmapDescriptors: number;
  readonly maxWriteSameBlocks: number;
  /** Granularity in blocks: the store's own block. */
  readonly granularityBlocks: number;
}

/** A VPD page, or undefined for one that isn't there. */
export function vpdPage(
  code: number,
  identity: UnitIdentity,
  limits: BlockLimits,
  peripheral = 0,
): Uint8Array | undefined {
  switch (code) {
    case VpdPage.supportedPages:
      return page(code, Uint8Array.from(pageCodes), peripheral);
    case VpdPage.unitSerial: {
      const body = new Uint8Array(identity.serial.length);
      ascii(body, 0, body.length, identity.serial);
      return page(code, body, peripheral);
    }
    case VpdPage.deviceIdentification:
      return page(code, deviceIdentification(identity), peripheral);
    case VpdPage.blockLimits:
      return page(code, blockLimitsBody(limits), peripheral);
    case VpdPage.blockDeviceCharacteristics: {
      const body = new Uint8Array(60);
      writeU16(body, 0, 1); // non-rotating
      return page(code, body, peripheral);
    }
    case VpdPage.logicalBlockProvisioning: {
      const body = new Uint8Array(4);
      // LBPU, LBPWS, LBPWS10, LBPRZ: unmapped blocks read as zeros.
      body[1] = 0x80 | 0x40 | 0x20 | 0x04;
      body[2] = 0x02; // thin
      return page(code, body, peripheral);
    }
    default:
      return undefined;
  }
}

function blockLimitsBody(limits: BlockLimits): Uint8Array {
  const body = new Uint8Array(60);
  body[0] = 0x01; // WSNZ: WRITE SAME of "0 blocks" is refused
  body[1] = limits.maxCompareAndWriteBlocks;
  writeU16(body, 2, limits.granularityBlocks);
  writeU32(body, 4, limits.maxTransferBlocks);
  writeU32(body, 8, limits.optimalTransferBlocks);
  writeU32(body, 16, limits.maxUnmapBlocks);
  writeU32(body, 20, limits.maxUnmapDescriptors);
  writeU32(body, 24, limits.granularityBlocks);
  writeU32(body, 28, 0x80000000); // UGAVALID, alignment 0
  writeU32(body, 36, limits.maxWriteSameBlocks);
  return body;
}

/** NAA 6 of the volume, T10 vendor id, and the target port's SCSI name. */
function deviceIdentification(identity: UnitIdentity): Uint8Array {
  const naa = new Uint8Array(4 + 16);
  naa.set([0x01, 0x03, 0, 16]);
  naa.set(identity.uuid, 4);
  naa[4] = 0x60 | (identity.uuid[0] & 0x0f);

  const vendor = new Uint8Array(4 + 8 + identity.serial.length);
  vendor.set([0x02, 0x01, 0, 8 + identity.serial.length]);
  ascii(vendor, 4, 8, identity.vendor);
  ascii(vendor, 12, identity.serial.length, identity.serial);

  // SCSI name string of the port: name,t,0xTPGT; zero-ended, padded to a word.
  const name = `${identity.targetName},t,0x0001`;
  const padded = (name.length + 4) & ~3;
  const port = new Uint8Array(4 + padded);
  port.set([0x53, 0x98, 0, padded]);
  ascii(port, 4, name.length, name);

  const relative = Uint8Array.of(0x01, 0x94, 0, 4, 0, 0, 0, 1);
  return Uint8Array.from([...naa, ...vendor, ...port, ...relative]);
}
