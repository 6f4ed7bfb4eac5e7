/**
 * Persistent reservations of a unit (SPC-4 section 5.14): who is registered, who holds it. Kept in
 * memory only (PTPL_C=0): they end with the service, which every session sees as unit attention 29h.
 */
import { readU32 } from "#lib/wire/iscsi/layout.ts";
import { ScsiOp } from "#lib/wire/scsi/cdb.ts";
import type { Connection } from "./connection.ts";

export const ReservationType = {
  writeExclusive: 1,
  exclusiveAccess: 3,
  writeExclusiveRegistrants: 5,
  exclusiveAccessRegistrants: 6,
  writeExclusiveAll: 7,
  exclusiveAccessAll: 8,
} as const;

export const reservationTypes: ReadonlySet<number> = new Set(Object.values(ReservationType));

/** 16 hex digits. */
export type ReservationKey = string;

export const noKey: ReservationKey = "0".repeat(16);

export interface Reservation {
  readonly type: number;
  /** Nexus of the holder; for the "all registrants" types whoever made it. */
  readonly nexus: string;
}

/** Who asks: an initiator port is its name and ISID (RFC 7143 section 4.4.1). */
export function nexusOf(c: Connection): string {
  return `${c.initiator},i,0x${c.isid}`;
}

/** Commands that a reservation of another doesn't touch. */
const alwaysAllowed: ReadonlySet<number> = new Set([
  ScsiOp.testUnitReady,
  ScsiOp.requestSense,
  ScsiOp.inquiry,
  ScsiOp.reportLuns,
  ScsiOp.readCapacity10,
  ScsiOp.serviceActionIn16,
  ScsiOp.maintenanceIn,
  ScsiOp.persistentReserveIn,
  // PERSISTENT RESERVE OUT checks for itself.
  ScsiOp.persistentReserveOut,
]);

/** Commands that only look: "write exclusive" lets them pass. */
const reading: ReadonlySet<number> = new Set([
  ScsiOp.read6,
  ScsiOp.read10,
  ScsiOp.read12,
  ScsiOp.read16,
  ScsiOp.verify10,
  ScsiOp.verify12,
  ScsiOp.verify16,
  ScsiOp.preFetch10,
  ScsiOp.preFetch16,
  ScsiOp.modeSense6,
  ScsiOp.modeSense10,
  ScsiOp.readDefectData10,
]);

export class Reservations {
  /** True when a command may have to be refused: looked at by the hot path. */
  active = false;
  generation = 0;
  readonly registrations = new Map<string, ReservationKey>();
  private current: Reservation | undefined;

  get held(): Reservation | undefined {
    return this.current;
  }

  set held(reservation: Reservation | undefined) {
    this.current = reservation;
    this.active = reservation !== undefined;
  }

  get forAllRegistrants(): boolean {
    return this.current !== undefined && this.current.type >= ReservationType.writeExclusiveAll;
  }

  holds(nexus: string): boolean {
    if (this.current === undefined) return false;
    return this.forAllRegistrants ? this.registrations.has(nexus) : this.current.nexus === nexus;
  }

  /** SPC-4 table 54 and SBC-3 table 13. */
  conflicts(c: Connection, opcode: number, b: Uint8Array, cdb: number): boolean {
    const held = this.current;
    if (held === undefined || alwaysAllowed.has(opcode)) return false;
    // PREVENT ALLOW with PREVENT=0, START STOP UNIT with START=1 and no power condition.
    if (opcode === ScsiOp.preventAllowMediumRemoval) return (b[cdb + 4] & 0x03) !== 0;
    if (opcode === ScsiOp.startStopUnit && (readU32(b, cdb + 2) & 0xfff3) === 1) return false;
    const nexus = nexusOf(c);
    if (this.holds(nexus)) return false;
    if (held.type >= ReservationType.writeExclusiveRegistrants && this.registrations.has(nexus)) {
      return false;
    }
    const sharedReads =
      held.type === ReservationType.writeExclusive ||
      held.type === ReservationType.writeExclusiveRegistrants ||
      held.type === ReservationType.writeExclusiveAll;
    return !(sharedReads && reading.has(opcode));
  }
}
