/**
 * The control API's documents: what `api` puts and what it may read back.
 *
 *   PUT  /v1/exports   ExportsPut     -> ApplyResult     409 STALE_GENERATION for an older generation
 *   GET  /v1/exports   -> ExportsView                    never holds a secret
 *   GET  /v1/sessions  -> SessionsView
 *   GET  /v1/status    -> TargetStatus
 *   GET  /v1/events    -> server-sent `event: sessions`, data SessionsView, on each log-in or log-out
 */
import { z } from "zod";
import { parseIqn, parseVolumeId } from "#lib/model/ids.ts";

/** IQNs are compared lower-cased (RFC 7143 section 4.2.7). */
export const iqnSchema = z.string().transform((text, context) => {
  const iqn = parseIqn(text);
  if (iqn === undefined) {
    context.addIssue({
      code: "custom",
      message: `"${text}" is not an iSCSI name; give one like iqn.2026-11.org.example:name.`,
    });
    return z.NEVER;
  }
  return iqn;
});

export const volumeIdSchema = z.string().transform((text, context) => {
  const id = parseVolumeId(text);
  if (id === undefined) {
    context.addIssue({ code: "custom", message: `"${text}" is not a volume id (UUID).` });
    return z.NEVER;
  }
  return id;
});

const chapName = z.string().min(1).max(255);
/** RFC 7143 section 12.1.3: secrets of at least 96 bits; initiators of note stop at 255 bytes. */
const chapSecret = z
  .string()
  .min(12, "A CHAP secret needs at least 12 characters.")
  .max(255, "A CHAP secret has at most 255 characters.");

export const chapSchema = z
  .strictObject({
    user: chapName,
    secret: chapSecret,
    /** With both, the target proves itself to an initiator that asks (mutual CHAP). */
    mutualUser: chapName.optional(),
    mutualSecret: chapSecret.optional(),
  })
  .refine((chap) => (chap.mutualUser === undefined) === (chap.mutualSecret === undefined), {
    message: "mutualUser and mutualSecret go together.",
  })
  .refine((chap) => chap.mutualSecret !== chap.secret, {
    message: "The secrets of the two directions must differ (RFC 7143 section 9.2.1).",
  });

export const exportSchema = z.strictObject({
  /** Stable name of this export, api's own: at most 64 of a-z, A-Z, 0-9, '.', '_', '-'. */
  id: z.string().regex(/^[\w.-]{1,64}$/, "An export id is 1 to 64 of letters, digits, . _ -"),
  /** The target's name. One LUN a target: LUN 0. */
  iqn: iqnSchema,
  volumeId: volumeIdSchema,
  /** Who may see and use it. Empty and not `openToLoopback`: nobody. */
  initiators: z.array(iqnSchema).max(1024).default([]),
  /** For development: any initiator that connects from 127.0.0.0/8 or ::1. */
  openToLoopback: z.boolean().default(false),
  readOnly: z.boolean().default(false),
  /** Without it, an initiator on the list logs in without proof. */
  chap: chapSchema.optional(),
});

export const exportsPutSchema = z
  .strictObject({
    /** Only grows. The same generation again is applied again (repeatable). */
    generation: z.number().int().min(1).max(Number.MAX_SAFE_INTEGER),
    exports: z.array(exportSchema).max(4096),
  })
  .superRefine(({ exports }, context) => {
    for (const field of ["id", "iqn"] as const) {
      const seen = new Set<string>();
      for (const entry of exports) {
        if (seen.has(entry[field])) {
          context.addIssue({
            code: "custom",
            message: `Two exports have the ${field} "${entry[field]}"; give each its own.`,
          });
        }
        seen.add(entry[field]);
      }
    }
  });

export type Chap = z.infer<typeof chapSchema>;
export type Export = z.infer<typeof exportSchema>;
export type ExportsPut = z.infer<typeof exportsPutSchema>;
/** What a caller sends: defaults may be left out, names are plain strings. */
export type ExportsPutInput = z.input<typeof exportsPutSchema>;

export interface ApplyResult {
  readonly generation: number;
  /** Sessions ended because their export went away or no longer names their initiator. */
  readonly sessionsEnded: number;
}

/** Why a LUN can't serve right now; `ready` when it can. */
export type VolumeState = "ready" | "opening" | "storeUnreachable" | "notFound" | "storeFailed";

/** An export as GET shows it: the user names of CHAP, never a secret. */
export interface ExportView {
  readonly id: string;
  readonly iqn: string;
  readonly lun: 0;
  readonly volumeId: string;
  readonly initiators: readonly string[];
  readonly openToLoopback: boolean;
  readonly readOnly: boolean;
  readonly chapUser: string | null;
  readonly chapMutual: boolean;
  readonly volumeState: VolumeState;
  /** Known once the store has opened the volume. */
  readonly sizeBytes: number | null;
  readonly sessionCount: number;
}

export interface ExportsView {
  /** 0: nothing was ever put. */
  readonly generation: number;
  readonly exports: readonly ExportView[];
}

export interface SessionView {
  /** Unique while the process runs. */
  readonly id: number;
  readonly kind: "discovery" | "normal";
  readonly phase: "login" | "fullFeature";
  /** Empty until the initiator has named itself. */
  readonly initiator: string;
  /** The export's id, target name and volume; null for discovery. */
  readonly exportId: string | null;
  readonly target: string | null;
  readonly volumeId: string | null;
  readonly remoteAddress: string;
  readonly portal: string;
  readonly isid: string;
  readonly authenticated: "none" | "chap" | "mutualChap";
  /** ISO 8601, UTC. */
  readonly since: string;
  readonly lastIoAt: string | null;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /**
   * Full logins to this target by this initiator before this one since the target's process
   * started. 0 for a boot loader's first; a booted system's own initiator is 1 or more.
   */
  readonly earlierLogins: number;
}

export interface SessionsView {
  readonly sessions: readonly SessionView[];
  /**
   * Normal sessions that ended less than a minute ago, as they were at their end, oldest first, at
   * most 256: who reads at each change misses none, however short it was.
   */
  readonly ended: readonly SessionView[];
}

export interface TargetStatus {
  readonly version: string;
  readonly startedAt: string;
  readonly generation: number;
  /** `HOST:PORT` as bound, so that port 0 shows the real one. */
  readonly portals: readonly string[];
  readonly driver: "native" | "net";
  readonly store: "connected" | "unreachable";
  readonly sessionCount: number;
  /** Failed logins since start, by reason. */
  readonly loginFailures: {
    readonly authentication: number;
    readonly notFound: number;
    readonly rateLimited: number;
    readonly protocol: number;
  };
}
