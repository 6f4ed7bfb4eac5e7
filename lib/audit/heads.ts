/**
 * Heads on their way and where they were kept: a line each, canonical JSON with the node's name.
 *
 *   {"hash":"9f...","node":"node-1","sequence":4711,"time":"2026-11-21T08:00:00.000Z"}
 *
 * A collector may put its own words before it (`Nov 21 08:00:00 node-1 keelson - ...`), and lines of
 * `keelson audit heads` have no name. api sends them, `keelson audit verify --heads` reads them.
 */
import { z } from "zod";
import { type AuditHead, auditHeadSchema, canonicalJson } from "./chain.ts";

const keptHeadSchema = auditHeadSchema.extend({ node: z.string().max(300).optional() });

export interface KeptHead extends AuditHead {
  /** Whose; undefined where the line doesn't say. */
  readonly node?: string | undefined;
}

/** Printable ASCII, whatever the node is called. */
export function headLine(head: AuditHead, node: string): string {
  const { sequence, hash, time } = head;
  const line = canonicalJson({ sequence, hash, time, node });
  return line.replaceAll(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Undefined for a line that has no head at its end. */
export function readHeadLine(line: string): KeptHead | undefined {
  const begin = line.indexOf('{"');
  if (begin === -1) return undefined;
  try {
    return keptHeadSchema.parse(JSON.parse(line.slice(begin)));
  } catch {
    return undefined;
  }
}
