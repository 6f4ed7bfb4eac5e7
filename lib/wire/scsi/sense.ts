/**
 * Sense data (SPC-4 section 4.5). A sense here is one number, key << 16 | ASC << 8 | ASCQ, so that
 * it can stand in an Int32Array.
 */
export const SenseKey = {
  noSense: 0x0,
  notReady: 0x2,
  mediumError: 0x3,
  hardwareError: 0x4,
  illegalRequest: 0x5,
  unitAttention: 0x6,
  dataProtect: 0x7,
  abortedCommand: 0xb,
  miscompare: 0xe,
} as const;

export const Sense = {
  none: 0x0_0000,
  becomingReady: 0x2_0401,
  notAccessible: 0x2_0400,
  mediumNotPresent: 0x2_3a00,
  initializingRequired: 0x2_0402,
  unrecoveredReadError: 0x3_1100,
  internalTargetFailure: 0x4_4400,
  parameterListLength: 0x5_1a00,
  invalidOpcode: 0x5_2000,
  lbaOutOfRange: 0x5_2100,
  invalidFieldInCdb: 0x5_2400,
  logicalUnitNotSupported: 0x5_2500,
  invalidFieldInParameterList: 0x5_2600,
  invalidReleaseOfReservation: 0x5_2604,
  mediumRemovalPrevented: 0x5_5302,
  insufficientRegistrationResources: 0x5_5504,
  powerOnOrReset: 0x6_2900,
  deviceInternalReset: 0x6_2904,
  modeParametersChanged: 0x6_2a01,
  reservationsPreempted: 0x6_2a03,
  reservationsReleased: 0x6_2a04,
  registrationsPreempted: 0x6_2a05,
  capacityChanged: 0x6_2a09,
  reportedLunsChanged: 0x6_3f0e,
  writeProtected: 0x7_2700,
  /** The thin store is full: the write was not done. */
  spaceAllocationFailed: 0x7_2707,
  /** RFC 7143 section 11.4.7.2. */
  incorrectDataAmount: 0xb_0c0d,
  protocolServiceCrc: 0xb_4705,
  dataSequence: 0xb_4b00,
  miscompareDuringVerify: 0xe_1d00,
} as const;

export const fixedSenseBytes = 18;
export const descriptorSenseBytes = 8;

/**
 * Fixed format, current error. `information`, where given (not negative), goes to the INFORMATION
 * field with VALID set: for a miscompare, the offset of the first byte that differs.
 */
export function writeFixedSense(
  into: Uint8Array,
  at: number,
  sense: number,
  information = -1,
): void {
  into.fill(0, at, at + fixedSenseBytes);
  into[at] = information >= 0 ? 0xf0 : 0x70;
  into[at + 2] = sense >>> 16;
  if (information >= 0) {
    into[at + 3] = information >>> 24;
    into[at + 4] = information >>> 16;
    into[at + 5] = information >>> 8;
    into[at + 6] = information;
  }
  into[at + 7] = fixedSenseBytes - 8;
  into[at + 12] = sense >>> 8;
  into[at + 13] = sense;
}

/** Descriptor format without descriptors; what REQUEST SENSE with DESC=1 gets. */
export function descriptorSense(sense: number): Uint8Array {
  return Uint8Array.of(0x72, (sense >>> 16) & 0xff, (sense >>> 8) & 0xff, sense & 0xff, 0, 0, 0, 0);
}

export function fixedSense(sense: number): Uint8Array {
  const bytes = new Uint8Array(fixedSenseBytes);
  writeFixedSense(bytes, 0, sense);
  return bytes;
}
