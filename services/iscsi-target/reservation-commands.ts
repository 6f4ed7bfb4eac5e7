/** PERSISTENT RESERVE IN and OUT (SPC-4 sections 6.15 and 6.16). */
import { readU16, readU32, writeU16, writeU32 } from "#lib/wire/iscsi/layout.ts";
import { ScsiStatus } from "#lib/wire/scsi/cdb.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import type { Connection } from "./connection.ts";
import type { DataPath } from "./data-path.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import {
  nexusOf,
  noKey,
  type ReservationKey,
  type Reservations,
  ReservationType,
  reservationTypes,
} from "./reservation.ts";

const Action = {
  register: 0,
  reserve: 1,
  release: 2,
  clear: 3,
  preempt: 4,
  preemptAndAbort: 5,
  registerAndIgnore: 6,
} as const;

const parameterBytes = 24;

type Verdict = { readonly status?: number; readonly sense?: number };
const good: Verdict = {};
const conflict: Verdict = { status: ScsiStatus.reservationConflict };

interface Change {
  readonly c: Connection;
  readonly unit: LogicalUnit;
  readonly nexus: string;
  readonly key: ReservationKey;
  readonly actionKey: ReservationKey;
  readonly scope: number;
  readonly type: number;
}

export class ReservationCommands {
  private readonly path: DataPath;
  private readonly sessionsOf: (unit: LogicalUnit) => Iterable<Connection>;

  constructor(path: DataPath, sessionsOf: (unit: LogicalUnit) => Iterable<Connection>) {
    this.path = path;
    this.sessionsOf = sessionsOf;
  }

  read(c: Connection, slot: number, cdb: Uint8Array): void {
    const { reservations } = c.unit!;
    const length = readU16(cdb, 7);
    const data = readAnswer(reservations, cdb[1] & 0x1f);
    if (data === undefined) this.path.fail(c, slot, Sense.invalidFieldInCdb);
    else this.path.answer(c, slot, data.subarray(0, length));
  }

  write(c: Connection, slot: number, cdb: Uint8Array): number {
    const path = this.path;
    const action = cdb[1] & 0x1f;
    if (action > Action.registerAndIgnore || action === Action.preemptAndAbort) {
      path.fail(c, slot, Sense.invalidFieldInCdb);
      return 0;
    }
    if (readU32(cdb, 5) !== parameterBytes) {
      path.fail(c, slot, Sense.parameterListLength);
      return 0;
    }
    path.table.steps[slot] = () => {
      const list = path.parameters(slot);
      if (list.length !== parameterBytes) {
        path.fail(c, slot, Sense.parameterListLength);
        return;
      }
      const hex = Buffer.from(list).toString("hex");
      const change: Change = {
        c,
        unit: c.unit!,
        nexus: nexusOf(c),
        key: hex.slice(0, 16),
        actionKey: hex.slice(16, 32),
        scope: cdb[2] >> 4,
        type: cdb[2] & 0x0f,
      };
      const verdict = this.apply(action, change, list[20]);
      if (verdict.sense !== undefined) path.fail(c, slot, verdict.sense);
      else if (verdict.status !== undefined) path.refuse(c, slot, verdict.status);
      else path.finish(c, slot);
    };
    return parameterBytes;
  }

  private apply(action: number, change: Change, options: number): Verdict {
    const { reservations } = change.unit;
    const registered = reservations.registrations.get(change.nexus);
    if (action === Action.register || action === Action.registerAndIgnore) {
      // SPEC_I_PT and APTPL are not offered (see REPORT CAPABILITIES).
      if ((options & 0x09) !== 0) return { sense: Sense.invalidFieldInParameterList };
      if (action === Action.register && change.key !== (registered ?? noKey)) return conflict;
      return this.register(change, registered);
    }
    if (registered === undefined || registered !== change.key) return conflict;
    switch (action) {
      case Action.reserve:
        return this.reserve(change);
      case Action.release:
        return this.release(change);
      case Action.clear:
        this.attend(change, Sense.reservationsPreempted, () => true);
        reservations.registrations.clear();
        reservations.held = undefined;
        reservations.generation++;
        return good;
      default:
        return this.preempt(change);
    }
  }

  private register(change: Change, registered: ReservationKey | undefined): Verdict {
    const { reservations } = change.unit;
    if (change.actionKey === noKey) {
      if (registered !== undefined) this.unregister(change);
    } else reservations.registrations.set(change.nexus, change.actionKey);
    reservations.generation++;
    return good;
  }

  private unregister(change: Change): void {
    const { reservations } = change.unit;
    const held = reservations.held;
    const holds = reservations.holds(change.nexus);
    reservations.registrations.delete(change.nexus);
    if (held === undefined || !holds) return;
    if (reservations.forAllRegistrants && reservations.registrations.size > 0) return;
    reservations.held = undefined;
    if (held.type >= ReservationType.writeExclusiveRegistrants) {
      this.attend(change, Sense.reservationsReleased, (nexus) =>
        reservations.registrations.has(nexus),
      );
    }
  }

  private reserve({ unit, nexus, scope, type }: Change): Verdict {
    const { reservations } = unit;
    if (scope !== 0 || !reservationTypes.has(type)) return { sense: Sense.invalidFieldInCdb };
    const held = reservations.held;
    if (held === undefined) {
      reservations.held = { type, nexus };
      return good;
    }
    return reservations.holds(nexus) && held.type === type ? good : conflict;
  }

  private release(change: Change): Verdict {
    const { reservations } = change.unit;
    const held = reservations.held;
    if (held === undefined || !reservations.holds(change.nexus)) return good;
    if (held.type !== change.type || change.scope !== 0) {
      return { sense: Sense.invalidReleaseOfReservation };
    }
    reservations.held = undefined;
    if (held.type >= ReservationType.writeExclusiveRegistrants) {
      this.attend(change, Sense.reservationsReleased, (nexus) =>
        reservations.registrations.has(nexus),
      );
    }
    return good;
  }

  private preempt(change: Change): Verdict {
    const { unit, nexus, scope, type, actionKey } = change;
    const { reservations } = unit;
    const held = reservations.held;
    const all = reservations.forAllRegistrants;
    const holderKey = held === undefined ? undefined : reservations.registrations.get(held.nexus);
    const takesOver = held !== undefined && (all ? actionKey === noKey : actionKey === holderKey);
    if (!takesOver && actionKey === noKey) return { sense: Sense.invalidFieldInParameterList };
    if (takesOver && (scope !== 0 || !reservationTypes.has(type))) {
      return { sense: Sense.invalidFieldInCdb };
    }
    const removed = new Set<string>();
    for (const [other, key] of reservations.registrations) {
      const named = takesOver && all ? true : key === actionKey;
      if (named && other !== nexus) removed.add(other);
    }
    if (removed.size === 0 && !takesOver) return conflict;
    for (const other of removed) reservations.registrations.delete(other);
    if (takesOver) {
      const changed = held!.type !== type;
      reservations.held = { type, nexus };
      if (changed) {
        this.attend(change, Sense.reservationsReleased, (other) =>
          reservations.registrations.has(other),
        );
      }
    } else if (all && reservations.registrations.size === 0) reservations.held = undefined;
    reservations.generation++;
    this.attend(change, Sense.registrationsPreempted, (other) => removed.has(other));
    return good;
  }

  /** Unit attention for the other sessions whose nexus is meant. */
  private attend(change: Change, sense: number, meant: (nexus: string) => boolean): void {
    const { registrations } = change.unit.reservations;
    for (const session of this.sessionsOf(change.unit)) {
      const nexus = nexusOf(session);
      if (session === change.c || !meant(nexus)) continue;
      if (sense === Sense.reservationsPreempted && !registrations.has(nexus)) continue;
      session.attend(sense);
    }
  }
}

function readAnswer(reservations: Reservations, action: number): Uint8Array | undefined {
  const held = reservations.held;
  const holderKey = () =>
    reservations.forAllRegistrants
      ? noKey
      : (reservations.registrations.get(held?.nexus ?? "") ?? noKey);
  switch (action) {
    case 0:
      return withGeneration(
        reservations,
        Buffer.from([...reservations.registrations.values()].join(""), "hex"),
      );
    case 1: {
      if (held === undefined) return withGeneration(reservations, new Uint8Array(0));
      const entry = new Uint8Array(16);
      entry.set(Buffer.from(holderKey(), "hex"));
      entry[13] = held.type;
      return withGeneration(reservations, entry);
    }
    case 2: {
      const data = new Uint8Array(8);
      writeU16(data, 0, 8);
      data[2] = 0x00; // no CRH, SIP_C, ATP_C, PTPL_C
      data[3] = 0x80; // TMV
      writeU16(data, 4, 0xea01); // types 7, 6, 5, 3, 1 and 8
      return data;
    }
    case 3:
      return withGeneration(reservations, fullStatus(reservations));
    default:
      return undefined;
  }
}

function withGeneration(reservations: Reservations, body: Uint8Array): Uint8Array {
  const data = new Uint8Array(8 + body.length);
  writeU32(data, 0, reservations.generation);
  writeU32(data, 4, body.length);
  data.set(body, 8);
  return data;
}

function fullStatus(reservations: Reservations): Uint8Array {
  const entries = [...reservations.registrations].map(([nexus, key]) => {
    const name = Buffer.from(`${nexus}\0`, "latin1");
    const padded = Math.max(20, (name.length + 3) & ~3);
    const entry = new Uint8Array(24 + 4 + padded);
    entry.set(Buffer.from(key, "hex"));
    const holds = reservations.holds(nexus);
    if (holds) entry[12] = 0x01;
    if (holds) entry[13] = reservations.held!.type;
    writeU16(entry, 18, 1);
    writeU32(entry, 20, 4 + padded);
    entry[24] = 0x45; // TransportID: iSCSI name and ISID
    writeU16(entry, 26, padded);
    entry.set(name, 28);
    return entry;
  });
  return Buffer.concat(entries);
}
