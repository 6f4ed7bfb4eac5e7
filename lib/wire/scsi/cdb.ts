/** SCSI command descriptor blocks: codes, lengths and fields (SPC-4, SBC-3). */
import { readU16, readU24, readU32 } from "../iscsi/layout.ts";

export const ScsiOp = {
  testUnitReady: 0x00,
  requestSense: 0x03,
  read6: 0x08,
  write6: 0x0a,
  inquiry: 0x12,
  modeSelect6: 0x15,
  modeSense6: 0x1a,
  startStopUnit: 0x1b,
  preventAllowMediumRemoval: 0x1e,
  readCapacity10: 0x25,
  read10: 0x28,
  write10: 0x2a,
  writeAndVerify10: 0x2e,
  verify10: 0x2f,
  preFetch10: 0x34,
  synchronizeCache10: 0x35,
  readDefectData10: 0x37,
  writeSame10: 0x41,
  unmap: 0x42,
  modeSelect10: 0x55,
  modeSense10: 0x5a,
  persistentReserveIn: 0x5e,
  persistentReserveOut: 0x5f,
  read16: 0x88,
  compareAndWrite: 0x89,
  write16: 0x8a,
  orWrite: 0x8b,
  writeAndVerify16: 0x8e,
  verify16: 0x8f,
  preFetch16: 0x90,
  synchronizeCache16: 0x91,
  writeSame16: 0x93,
  serviceActionIn16: 0x9e,
  reportLuns: 0xa0,
  maintenanceIn: 0xa3,
  read12: 0xa8,
  write12: 0xaa,
  writeAndVerify12: 0xae,
  verify12: 0xaf,
} as const;

export const ServiceAction = {
  readCapacity16: 0x10,
  reportSupportedOpcodes: 0x0c,
  reportSupportedTaskManagement: 0x0d,
} as const;

export const ScsiStatus = {
  good: 0x00,
  checkCondition: 0x02,
  busy: 0x08,
  reservationConflict: 0x18,
  taskSetFull: 0x28,
  taskAborted: 0x40,
} as const;

/** Byte 1 of READ, WRITE and their kin. */
export const CdbFlag = { protect: 0xe0, dpo: 0x10, fua: 0x08, byteCheck: 0x06 } as const;

/** Length of a CDB by its group (SPC-4 section 4.2.5.1); 0 for variable and vendor groups. */
export function cdbLength(opcode: number): number {
  return [6, 10, 10, 0, 16, 12, 0, 0][opcode >> 5];
}

/**
 * Logical block address of the opcode's own form, as a number: 64-bit addresses past 2^53 come back
 * as Infinity, which is past the end of any volume.
 */
export function cdbLba(cdb: Uint8Array, at = 0): number {
  switch (cdb[at] >> 5) {
    case 0:
      return readU24(cdb, at + 1) & 0x1fffff;
    case 4: {
      const high = readU32(cdb, at + 2);
      return high >= 0x200000 ? Number.POSITIVE_INFINITY : high * 2 ** 32 + readU32(cdb, at + 6);
    }
    default:
      return readU32(cdb, at + 2);
  }
}

/** Blocks to transfer. In READ(6) and WRITE(6) zero stands for 256. */
export function cdbBlocks(cdb: Uint8Array, at = 0): number {
  switch (cdb[at] >> 5) {
    case 0:
      return cdb[at + 4] === 0 ? 256 : cdb[at + 4];
    case 4:
      return readU32(cdb, at + 10);
    case 5:
      return readU32(cdb, at + 6);
    default:
      return readU16(cdb, at + 7);
  }
}

export interface UnmapDescriptor {
  readonly lba: number;
  readonly blocks: number;
}

/**
 * UNMAP parameter list (SBC-3 section 5.28). Undefined when its lengths contradict each other or the
 * bytes; descriptors cut off by a short list are ignored, as the standard says.
 */
export function parseUnmapList(list: Uint8Array): UnmapDescriptor[] | undefined {
  if (list.length === 0) return [];
  if (list.length < 8) return undefined;
  const available = Math.min(readU16(list, 2), list.length - 8);
  const found: UnmapDescriptor[] = [];
  for (let at = 8; at + 16 <= 8 + available; at += 16) {
    const high = readU32(list, at);
    const lba =
      high >= 0x200000 ? Number.POSITIVE_INFINITY : high * 2 ** 32 + readU32(list, at + 4);
    found.push({ lba, blocks: readU32(list, at + 8) });
  }
  return found;
}

export interface SupportedCommand {
  readonly name: string;
  readonly opcode: number;
  readonly serviceAction?: number;
  /** Which bits a target looks at (SPC-4 section 6.35.3); its length is the CDB's. */
  readonly usage: readonly number[];
}

const ff = (count: number): number[] => new Array<number>(count).fill(0xff);

/** What REPORT SUPPORTED OPERATION CODES tells, and the one list of what is implemented. */
export const supportedCommands: readonly SupportedCommand[] = [
  { name: "TEST UNIT READY", opcode: 0x00, usage: [0x00, 0, 0, 0, 0, 0x07] },
  { name: "REQUEST SENSE", opcode: 0x03, usage: [0x03, 0x01, 0, 0, 0xff, 0x07] },
  { name: "READ(6)", opcode: 0x08, usage: [0x08, 0x1f, 0xff, 0xff, 0xff, 0x07] },
  { name: "WRITE(6)", opcode: 0x0a, usage: [0x0a, 0x1f, 0xff, 0xff, 0xff, 0x07] },
  { name: "INQUIRY", opcode: 0x12, usage: [0x12, 0x01, 0xff, 0xff, 0xff, 0x07] },
  { name: "MODE SELECT(6)", opcode: 0x15, usage: [0x15, 0x11, 0, 0, 0xff, 0x07] },
  { name: "MODE SENSE(6)", opcode: 0x1a, usage: [0x1a, 0x08, 0xff, 0xff, 0xff, 0x07] },
  { name: "START STOP UNIT", opcode: 0x1b, usage: [0x1b, 0x01, 0, 0x0f, 0xf7, 0x07] },
  { name: "PREVENT ALLOW MEDIUM REMOVAL", opcode: 0x1e, usage: [0x1e, 0, 0, 0, 0x03, 0x07] },
  { name: "READ CAPACITY(10)", opcode: 0x25, usage: [0x25, 0, ...ff(4), 0, 0, 0x01, 0x07] },
  { name: "READ(10)", opcode: 0x28, usage: [0x28, 0xfa, ...ff(4), 0x1f, ...ff(2), 0x07] },
  { name: "WRITE(10)", opcode: 0x2a, usage: [0x2a, 0xfa, ...ff(4), 0x1f, ...ff(2), 0x07] },
  { name: "WRITE AND VERIFY(10)", opcode: 0x2e, usage: [0x2e, 0xf2, ...ff(4), 0x1f, ...ff(2), 7] },
  { name: "VERIFY(10)", opcode: 0x2f, usage: [0x2f, 0xf6, ...ff(4), 0x1f, ...ff(2), 0x07] },
  { name: "PRE-FETCH(10)", opcode: 0x34, usage: [0x34, 0x02, ...ff(4), 0x1f, ...ff(2), 0x07] },
  { name: "SYNCHRONIZE CACHE(10)", opcode: 0x35, usage: [0x35, 2, ...ff(4), 0x1f, ...ff(2), 7] },
  { name: "READ DEFECT DATA(10)", opcode: 0x37, usage: [0x37, 0, 0x1f, 0, 0, 0, 0, ...ff(2), 7] },
  { name: "WRITE SAME(10)", opcode: 0x41, usage: [0x41, 0xf8, ...ff(4), 0x1f, ...ff(2), 0x07] },
  { name: "UNMAP", opcode: 0x42, usage: [0x42, 0, 0, 0, 0, 0, 0x1f, ...ff(2), 0x07] },
  { name: "MODE SELECT(10)", opcode: 0x55, usage: [0x55, 0x11, 0, 0, 0, 0, 0, ...ff(2), 0x07] },
  { name: "MODE SENSE(10)", opcode: 0x5a, usage: [0x5a, 0x18, ...ff(2), 0, 0, 0, ...ff(2), 7] },
  ...[0, 1, 2, 3].map((serviceAction) => ({
    name: "PERSISTENT RESERVE IN",
    opcode: 0x5e,
    serviceAction,
    usage: [0x5e, serviceAction, 0, 0, 0, 0, 0, ...ff(2), 0x07],
  })),
  ...[0, 1, 2, 3, 4, 6].map((serviceAction) => ({
    name: "PERSISTENT RESERVE OUT",
    opcode: 0x5f,
    serviceAction,
    usage: [0x5f, serviceAction, 0xff, 0, 0, ...ff(4), 0x07],
  })),
  { name: "READ(16)", opcode: 0x88, usage: [0x88, 0xfa, ...ff(12), 0x1f, 0x07] },
  {
    name: "COMPARE AND WRITE",
    opcode: 0x89,
    usage: [0x89, 0xf8, ...ff(8), 0, 0, 0, 0xff, 0x1f, 7],
  },
  { name: "WRITE(16)", opcode: 0x8a, usage: [0x8a, 0xfa, ...ff(12), 0x1f, 0x07] },
  { name: "ORWRITE(16)", opcode: 0x8b, usage: [0x8b, 0xfa, ...ff(12), 0x1f, 0x07] },
  { name: "WRITE AND VERIFY(16)", opcode: 0x8e, usage: [0x8e, 0xf2, ...ff(12), 0x1f, 0x07] },
  { name: "VERIFY(16)", opcode: 0x8f, usage: [0x8f, 0xf6, ...ff(12), 0x1f, 0x07] },
  { name: "PRE-FETCH(16)", opcode: 0x90, usage: [0x90, 0x02, ...ff(12), 0x1f, 0x07] },
  { name: "SYNCHRONIZE CACHE(16)", opcode: 0x91, usage: [0x91, 0x02, ...ff(12), 0x1f, 0x07] },
  { name: "WRITE SAME(16)", opcode: 0x93, usage: [0x93, 0xf9, ...ff(12), 0x1f, 0x07] },
  {
    name: "READ CAPACITY(16)",
    opcode: 0x9e,
    serviceAction: 0x10,
    usage: [0x9e, 0x10, ...ff(12), 0x01, 0x07],
  },
  { name: "REPORT LUNS", opcode: 0xa0, usage: [0xa0, 0, 0xff, 0, 0, 0, ...ff(4), 0, 0x07] },
  {
    name: "REPORT SUPPORTED OPERATION CODES",
    opcode: 0xa3,
    serviceAction: 0x0c,
    usage: [0xa3, 0x0c, 0x87, ...ff(7), 0, 0x07],
  },
  {
    name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
    opcode: 0xa3,
    serviceAction: 0x0d,
    usage: [0xa3, 0x0d, 0x80, 0, 0, 0, ...ff(4), 0, 0x07],
  },
  { name: "READ(12)", opcode: 0xa8, usage: [0xa8, 0xfa, ...ff(8), 0x1f, 0x07] },
  { name: "WRITE(12)", opcode: 0xaa, usage: [0xaa, 0xfa, ...ff(8), 0x1f, 0x07] },
  { name: "WRITE AND VERIFY(12)", opcode: 0xae, usage: [0xae, 0xf2, ...ff(8), 0x1f, 0x07] },
  { name: "VERIFY(12)", opcode: 0xaf, usage: [0xaf, 0xf6, ...ff(8), 0x1f, 0x07] },
];
