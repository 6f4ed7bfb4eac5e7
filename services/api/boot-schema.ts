/**
 * What netboot asks of api on <run>/internal.sock; the answers are netboot's contract too.
 *
 *   POST /v1/boot             BootRequest -> BootAnswer    200 also for "unknown" and "error"
 *   POST /v1/clients/stages   StageReport -> 204
 */
import { z } from "zod";
import { macSchema, uuidSchema } from "./schema.ts";

/** PXE client architecture, RFC 4578 section 2.1. */
const architecture = z.int().min(0).max(65_535);

/** A client asks for its script. */
export const bootRequestSchema = z.object({
  mac: macSchema,
  uuid: uuidSchema.optional(),
  arch: architecture.optional(),
  ip: z.ipv4().optional(),
});

/** Messages are one line of ASCII for the client's screen. */
export const bootAnswerSchema = z.discriminatedUnion("action", [
  z.object({
    action: z.literal("san"),
    /** `ADDRESS:PORT`; 0.0.0.0 stands for the address that the client reached netboot on. */
    portal: z.string(),
    iqn: z.string(),
    lun: z.int(),
    initiatorIqn: z.string(),
    /** Letters and digits only. Goes to the client, never to a log. */
    chap: z.object({ user: z.string(), secret: z.string() }),
  }),
  /** No boot entry names this client. */
  z.object({ action: z.literal("unknown"), message: z.string() }),
  /** It is known but can't boot now: its image is missing, the store is full or away. */
  z.object({ action: z.literal("error"), message: z.string() }),
]);

export const stageReportSchema = z.object({
  mac: macSchema,
  uuid: uuidSchema.optional(),
  stage: z.enum(["dhcp", "loader", "script"]),
  arch: architecture.optional(),
  ip: z.ipv4().optional(),
  interface: z.string().max(40).optional(),
  /** One line: the file loaded, or what the script told the machine to do. */
  detail: z.string().max(300).optional(),
  /** When netboot saw it, by the wall clock of the node that both run on. Default: now. */
  at: z.iso.datetime().optional(),
});

export type BootRequest = z.infer<typeof bootRequestSchema>;
export type BootAnswer = z.infer<typeof bootAnswerSchema>;
export type StageReport = z.infer<typeof stageReportSchema>;
