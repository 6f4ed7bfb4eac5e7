/**
 * What api says about the audit log; lib/audit/chain.ts tells how entries are chained.
 *
 *   GET /audit          ?before&limit&user&action&outcome&since&until -> AuditPage  newest first
 *   GET /audit/export   ?from -> NDJSON, oldest first, each line as it stands in the log
 *   GET /audit/heads    -> AuditHeads     keep them elsewhere
 */
import { z } from "zod";
import {
  type AuditEntry,
  type AuditHead,
  auditEntrySchema,
  auditHeadSchema,
} from "#lib/audit/chain.ts";

export const auditQuerySchema = z.object({
  /** Entries older than this one: `next` of the page before. */
  before: z.coerce.number().int().min(1).optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  user: z.string().max(64).optional(),
  /** A part of the action, such as `/volumes` or `DELETE`. */
  action: z.string().max(200).optional(),
  target: z.string().max(200).optional(),
  outcome: z.enum(["done", "refused", "failed"]).optional(),
  since: z.iso.datetime({ offset: true }).optional(),
  until: z.iso.datetime({ offset: true }).optional(),
});

export const auditPageSchema = z
  .object({
    entries: z.array(auditEntrySchema),
    /** Give it as `before` for the next page; null at the end. */
    next: z.number().int().nullable(),
  })
  .meta({ id: "AuditPage" });

export const auditHeadsSchema = z
  .object({
    head: auditHeadSchema,
    /** The last entry of each file of the log that is kept, oldest first. */
    files: z.array(auditHeadSchema),
    /** The oldest entry that is kept; older ones were rotated away. */
    firstSequence: z.number().int(),
  })
  .meta({ id: "AuditHeads" });

/**
 * `POST /v1/audit` on <run>/console.sock -> 204 when it is on the disk: what was done by somebody
 * at the node itself.
 */
export const localActionSchema = z.strictObject({
  via: z.enum(["console"]),
  /** A verb phrase: `reset the password of admin`. Never a secret. */
  action: z.string().min(1).max(200),
  target: z.string().max(200).nullable().default(null),
  outcome: z.enum(["done", "refused", "failed"]),
  detail: z.string().max(500).nullable().default(null),
});

export type LocalAction = z.input<typeof localActionSchema>;
export type { AuditEntry, AuditHead };
export type AuditQuery = z.infer<typeof auditQuerySchema>;
export type AuditPage = z.infer<typeof auditPageSchema>;
export type AuditHeads = z.infer<typeof auditHeadsSchema>;
