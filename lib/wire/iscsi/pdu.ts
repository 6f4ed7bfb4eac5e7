/**
 * iSCSI PDUs (RFC 7143 section 11). Every one opens with a basic header segment of 48 bytes:
 *
 *   byte  0        1        2        3
 *     0  |.I opcode|F flags  |opcode-specific   |
 *     4  |AHS words|DataSegmentLength           |
 *     8  |LUN or opcode-specific, 8 bytes       |
 *    16  |initiator task tag                    |
 *    20  |opcode-specific, 28 bytes             |
 *    48  [AHS, words x 4][header digest, 4]
 *        [data segment, padded to 4][data digest, 4]
 *
 * Layouts are for tests and rare PDUs; the data path reads and writes at `Bhs` offsets in place.
 */
import { defineLayout, type Fields, type Layout } from "./layout.ts";

export const bhsBytes = 48;
export const digestBytes = 4;

export const InitiatorOpcode = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskManagement: 0x02,
  login: 0x03,
  text: 0x04,
  dataOut: 0x05,
  logout: 0x06,
  snackRequest: 0x10,
} as const;

export const TargetOpcode = {
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskManagementResponse: 0x22,
  loginResponse: 0x23,
  textResponse: 0x24,
  dataIn: 0x25,
  logoutResponse: 0x26,
  readyToTransfer: 0x31,
  asyncMessage: 0x32,
  reject: 0x3f,
} as const;

export const opcodeMask = 0x3f;
export const immediateBit = 0x40;
export const finalBit = 0x80;
/** "No tag": unsolicited. */
export const reservedTag = 0xffffffff;

/** Offsets that the data path uses. */
export const Bhs = {
  opcode: 0,
  flags: 1,
  response: 2,
  status: 3,
  totalAhsWords: 4,
  dataSegmentLength: 5,
  lun: 8,
  initiatorTaskTag: 16,
  expectedDataTransferLength: 20,
  targetTransferTag: 20,
  cmdSN: 24,
  statSN: 24,
  expStatSN: 28,
  expCmdSN: 28,
  maxCmdSN: 32,
  cdb: 32,
  dataSN: 36,
  bufferOffset: 40,
  residualCount: 44,
  desiredDataTransferLength: 44,
} as const;

export const CommandFlag = { final: 0x80, read: 0x40, write: 0x20, attributes: 0x07 } as const;
/** SCSI Response and the status-carrying Data-In. */
export const ResponseFlag = { final: 0x80, overflow: 0x04, underflow: 0x02, status: 0x01 } as const;
export const LoginFlag = { transit: 0x80, continue: 0x40, currentStage: 0x0c, nextStage: 0x03 };

export const LoginStage = { security: 0, operational: 1, fullFeature: 3 } as const;

/** Status-Class and Status-Detail as one number (RFC 7143 section 11.13.5). */
export const LoginStatus = {
  success: 0x0000,
  initiatorError: 0x0200,
  authenticationFailure: 0x0201,
  authorizationFailure: 0x0202,
  notFound: 0x0203,
  targetRemoved: 0x0204,
  unsupportedVersion: 0x0205,
  tooManyConnections: 0x0206,
  missingParameter: 0x0207,
  cannotIncludeInSession: 0x0208,
  sessionTypeNotSupported: 0x0209,
  sessionDoesNotExist: 0x020a,
  invalidDuringLogin: 0x020b,
  targetError: 0x0300,
  serviceUnavailable: 0x0301,
  outOfResources: 0x0302,
} as const;

export const RejectReason = {
  dataDigestError: 0x02,
  protocolError: 0x04,
  commandNotSupported: 0x05,
  taskInProgress: 0x07,
  invalidPduField: 0x09,
  longOperationReject: 0x0a,
} as const;

export const TaskFunction = {
  abortTask: 1,
  abortTaskSet: 2,
  clearAca: 3,
  clearTaskSet: 4,
  logicalUnitReset: 5,
  targetWarmReset: 6,
  targetColdReset: 7,
  taskReassign: 8,
} as const;

export const TaskResponse = {
  complete: 0,
  taskDoesNotExist: 1,
  lunDoesNotExist: 2,
  taskStillAllegiant: 3,
  reassignNotSupported: 4,
  notSupported: 5,
  authorizationFailed: 6,
  rejected: 255,
} as const;

export const AsyncEvent = { scsi: 0, logoutRequest: 1, dropConnection: 2, dropSession: 3 } as const;

const common = {
  opcode: [0, "u8"],
  flags: [1, "u8"],
  totalAhsWords: [4, "u8"],
  dataSegmentLength: [5, "u24"],
  initiatorTaskTag: [16, "u32"],
} as const satisfies Fields;

const sequence = {
  statSN: [24, "u32"],
  expCmdSN: [28, "u32"],
  maxCmdSN: [32, "u32"],
} as const satisfies Fields;

const lun = { lun: [8, "bytes", 8] } as const satisfies Fields;

export const scsiCommandLayout = defineLayout(
  "ScsiCommand",
  bhsBytes,
  {
    ...common,
    ...lun,
    expectedDataTransferLength: [20, "u32"],
    cmdSN: [24, "u32"],
    expStatSN: [28, "u32"],
    cdb: [32, "bytes", 16],
  },
  [[2, 2]],
);

export const scsiResponseLayout = defineLayout(
  "ScsiResponse",
  bhsBytes,
  {
    ...common,
    ...sequence,
    response: [2, "u8"],
    status: [3, "u8"],
    snackTag: [20, "u32"],
    expDataSN: [36, "u32"],
    bidirectionalReadResidual: [40, "u32"],
    residualCount: [44, "u32"],
  },
  [[8, 8]],
);

export const dataOutLayout = defineLayout(
  "DataOut",
  bhsBytes,
  {
    ...common,
    ...lun,
    targetTransferTag: [20, "u32"],
    expStatSN: [28, "u32"],
    dataSN: [36, "u32"],
    bufferOffset: [40, "u32"],
  },
  [
    [2, 2],
    [24, 4],
    [32, 4],
    [44, 4],
  ],
);

export const dataInLayout = defineLayout(
  "DataIn",
  bhsBytes,
  {
    ...common,
    ...lun,
    ...sequence,
    status: [3, "u8"],
    targetTransferTag: [20, "u32"],
    dataSN: [36, "u32"],
    bufferOffset: [40, "u32"],
    residualCount: [44, "u32"],
  },
  [[2, 1]],
);

export const readyToTransferLayout = defineLayout(
  "ReadyToTransfer",
  bhsBytes,
  {
    ...common,
    ...lun,
    ...sequence,
    targetTransferTag: [20, "u32"],
    r2tSN: [36, "u32"],
    bufferOffset: [40, "u32"],
    desiredDataTransferLength: [44, "u32"],
  },
  [[2, 2]],
);

export const taskManagementLayout = defineLayout(
  "TaskManagement",
  bhsBytes,
  {
    ...common,
    ...lun,
    referencedTaskTag: [20, "u32"],
    cmdSN: [24, "u32"],
    expStatSN: [28, "u32"],
    refCmdSN: [32, "u32"],
    expDataSN: [36, "u32"],
  },
  [
    [2, 2],
    [40, 8],
  ],
);

export const taskManagementResponseLayout = defineLayout(
  "TaskManagementResponse",
  bhsBytes,
  { ...common, ...sequence, response: [2, "u8"] },
  [
    [3, 1],
    [8, 8],
    [20, 4],
    [36, 12],
  ],
);

export const loginLayout = defineLayout(
  "Login",
  bhsBytes,
  {
    ...common,
    versionMax: [2, "u8"],
    versionMin: [3, "u8"],
    isid: [8, "bytes", 6],
    tsih: [14, "u16"],
    connectionId: [20, "u16"],
    cmdSN: [24, "u32"],
    expStatSN: [28, "u32"],
  },
  [
    [22, 2],
    [32, 16],
  ],
);

export const loginResponseLayout = defineLayout(
  "LoginResponse",
  bhsBytes,
  {
    ...common,
    ...sequence,
    versionMax: [2, "u8"],
    versionActive: [3, "u8"],
    isid: [8, "bytes", 6],
    tsih: [14, "u16"],
    status: [36, "u16"],
  },
  [
    [20, 4],
    [38, 10],
  ],
);

export const textLayout = defineLayout(
  "Text",
  bhsBytes,
  {
    ...common,
    ...lun,
    targetTransferTag: [20, "u32"],
    cmdSN: [24, "u32"],
    expStatSN: [28, "u32"],
  },
  [
    [2, 2],
    [32, 16],
  ],
);

export const textResponseLayout = defineLayout(
  "TextResponse",
  bhsBytes,
  { ...common, ...lun, ...sequence, targetTransferTag: [20, "u32"] },
  [
    [2, 2],
    [36, 12],
  ],
);

export const logoutLayout = defineLayout(
  "Logout",
  bhsBytes,
  { ...common, connectionId: [20, "u16"], cmdSN: [24, "u32"], expStatSN: [28, "u32"] },
  [
    [2, 2],
    [8, 8],
    [22, 2],
    [32, 16],
  ],
);

export const logoutResponseLayout = defineLayout(
  "LogoutResponse",
  bhsBytes,
  {
    ...common,
    ...sequence,
    response: [2, "u8"],
    time2WaitSeconds: [40, "u16"],
    time2RetainSeconds: [42, "u16"],
  },
  [
    [3, 1],
    [8, 8],
    [20, 4],
    [36, 4],
    [44, 4],
  ],
);

export const nopOutLayout = defineLayout(
  "NopOut",
  bhsBytes,
  {
    ...common,
    ...lun,
    targetTransferTag: [20, "u32"],
    cmdSN: [24, "u32"],
    expStatSN: [28, "u32"],
  },
  [
    [2, 2],
    [32, 16],
  ],
);

export const nopInLayout = defineLayout(
  "NopIn",
  bhsBytes,
  { ...common, ...lun, ...sequence, targetTransferTag: [20, "u32"] },
  [
    [2, 2],
    [36, 12],
  ],
);

export const rejectLayout = defineLayout(
  "Reject",
  bhsBytes,
  { ...common, ...sequence, reason: [2, "u8"], dataSN: [36, "u32"] },
  [
    [3, 1],
    [8, 8],
    [20, 4],
    [40, 8],
  ],
);

export const asyncMessageLayout = defineLayout(
  "AsyncMessage",
  bhsBytes,
  {
    ...common,
    ...lun,
    ...sequence,
    event: [36, "u8"],
    vendorCode: [37, "u8"],
    parameter1: [38, "u16"],
    parameter2: [40, "u16"],
    parameter3: [42, "u16"],
  },
  [
    [2, 2],
    [20, 4],
    [44, 4],
  ],
);

export const layouts: readonly Layout<Fields>[] = [
  scsiCommandLayout,
  scsiResponseLayout,
  dataOutLayout,
  dataInLayout,
  readyToTransferLayout,
  taskManagementLayout,
  taskManagementResponseLayout,
  loginLayout,
  loginResponseLayout,
  textLayout,
  textResponseLayout,
  logoutLayout,
  logoutResponseLayout,
  nopOutLayout,
  nopInLayout,
  rejectLayout,
  asyncMessageLayout,
] as unknown as readonly Layout<Fields>[];

/** Bytes to add so that a segment ends on a word. */
export function padding(lengthBytes: number): number {
  return -lengthBytes & 3;
}

/** a < b in 32-bit serial number arithmetic (RFC 1982, RFC 7143 section 4.2.2.1). */
export function serialBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}
