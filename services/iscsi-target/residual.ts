/** Residual counts (RFC 7143 section 11.4.5): what was offered against what the command says. */
import { ResponseFlag } from "#lib/wire/iscsi/pdu.ts";
import { ScsiStatus } from "#lib/wire/scsi/cdb.ts";
import type { TaskTable } from "./task-table.ts";

/** A command that failed moved nothing. */
function moved(table: TaskTable, slot: number): number {
  return table.status[slot] === ScsiStatus.good ? table.commandBytes[slot] : 0;
}

export function residualFlags(table: TaskTable, slot: number): number {
  const expected = table.expectedBytes[slot];
  const bytes = moved(table, slot);
  if (bytes > expected) return ResponseFlag.overflow;
  return bytes < expected ? ResponseFlag.underflow : 0;
}

export function residual(table: TaskTable, slot: number): number {
  return Math.abs(moved(table, slot) - table.expectedBytes[slot]);
}
