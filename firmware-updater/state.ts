/**
 * What outlives restarts, in one file (docs/formats/upgrade.md), replaced as a whole before each
 * step. A format that this program doesn't know is set aside, not guessed at: the version that
 * wrote it is then the newer one, and this one runs because somebody went back.
 */
import { existsSync, renameSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { emptyTrustState, trustStateSchema } from "#lib/bundle/trust.ts";
import { type Codec, FormattedFile } from "#lib/data-format/formatted-file.ts";
import type { HeldFormatsFile } from "#lib/data-format/held.ts";
import { explainError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import { stepIds } from "./schema.ts";

export const stateFormat = 1;

const slotName = z.enum(["a", "b"]);
const release = z.object({ version: z.string(), rootHash: z.string().regex(/^[0-9a-f]{64}$/) });
const formatRange = z.object({ oldest: z.int().min(0), newest: z.int().min(0) });
const slotRecord = release.extend({
  worked: z.boolean(),
  failed: z.boolean(),
  dataFormats: z.record(z.string(), formatRange).optional(),
});

const linkBaseline = z.object({ mac: z.string(), name: z.string(), ipv4: z.boolean() });
/** What worked before the restart, and must work after it. */
export const baselineSchema = z.object({
  units: z.array(z.string()),
  links: z.array(linkBaseline),
});
export type Baseline = z.infer<typeof baselineSchema>;

const step = z.object({
  id: z.enum(stepIds),
  title: z.string(),
  state: z.enum(["waiting", "running", "done", "failed", "skipped"]),
  startedAt: z.string().nullable(),
  endedAt: z.string().nullable(),
  message: z.string().nullable(),
});
export type StoredStep = z.infer<typeof step>;

export const storedPlanSchema = z.object({
  id: z.string(),
  kind: z.enum(["upgrade", "rollback"]),
  state: z.enum(["running", "done", "returned", "failed", "cancelled"]),
  from: release,
  fromSlot: slotName,
  to: release,
  toSlot: slotName,
  bundleId: z.string().nullable(),
  gate: z.object({ holdSeconds: z.int(), deadlineSeconds: z.int() }),
  steps: z.array(step),
  startedAt: z.string(),
  endedAt: z.string().nullable(),
  failure: z.string().nullable(),
  /** First sector of the new UKI, base64: with it the entry becomes visible. */
  ukiHead: z.string().nullable(),
  baseline: baselineSchema.nullable(),
  /** Boot in which the step `restart` was begun. */
  restartBootId: z.string().nullable(),
  /** Boot in which the gate runs or ran. */
  gateBootId: z.string().nullable(),
  /** What the gate of the new version found, before it gave up. */
  gateFailure: z.string().nullable(),
  /** How often a power cut interrupted it before it was armed. */
  resumes: z.int(),
});
export type StoredPlan = z.infer<typeof storedPlanSchema>;

const storedStateSchema = z.object({
  format: z.literal(stateFormat),
  revision: z.int(),
  slots: z.object({ a: slotRecord.optional(), b: slotRecord.optional() }),
  plan: storedPlanSchema.nullable(),
  history: z.array(
    z.object({
      planId: z.string(),
      kind: z.enum(["upgrade", "rollback", "installation"]),
      fromVersion: z.string().nullable(),
      toVersion: z.string(),
      result: z.enum(["done", "returned", "failed", "cancelled"]),
      startedAt: z.string(),
      endedAt: z.string(),
      message: z.string().nullable(),
    }),
  ),
  lastFailure: z
    .object({
      planId: z.string(),
      version: z.string(),
      at: z.string(),
      reason: z.string(),
      attempts: z
        .array(
          z.object({
            bootId: z.string(),
            startedAt: z.string(),
            reached: z.string(),
            reason: z.string().nullable(),
          }),
        )
        .readonly(),
      log: z.array(z.string()).readonly(),
    })
    .nullable(),
  sources: z.object({
    channel: z.string().nullable(),
    neighbour: z.string().nullable(),
    neighbourFingerprint: z.string().nullable().default(null),
  }),
  trust: trustStateSchema,
  /** The release that the boot loaders are of; undefined: of the one that was installed. */
  loaders: z.string().optional(),
});
export type StoredState = z.infer<typeof storedStateSchema>;

export const emptyState: StoredState = {
  format: stateFormat,
  revision: 1,
  slots: {},
  plan: null,
  history: [],
  lastFailure: null,
  sources: { channel: null, neighbour: null, neighbourFingerprint: null },
  trust: emptyTrustState,
};

export interface StateStore {
  load(): StoredState;
  /** Durable when it returns. */
  save(state: StoredState): void;
}

const firstCodec: Codec<StoredState> = {
  format: stateFormat,
  decode: (document) => storedStateSchema.parse(document),
  encode: ({ format: _, ...rest }) => rest,
};

export class StateFile implements StateStore {
  readonly #path: string;
  readonly #file: FormattedFile<StoredState>;
  readonly #log: Log;

  constructor(folder: string, held: HeldFormatsFile, log: Log) {
    this.#path = join(folder, "state.json");
    this.#log = log;
    this.#file = new FormattedFile({
      ...{ path: this.#path, held, codecs: [firstCodec], name: "upgrade", member: "format" },
      remedy: "It is set aside: history and sources are lost, nothing else.",
    });
  }

  load(): StoredState {
    try {
      return this.#file.read() ?? emptyState;
    } catch (error) {
      return this.#setAside(explainError(error));
    }
  }

  save(state: StoredState): void {
    this.#file.write(state);
  }

  #setAside(why: string): StoredState {
    const aside = `${this.#path}.unknown`;
    if (existsSync(this.#path)) renameSync(this.#path, aside);
    this.#log.warn("the state of upgrades can't be read and was set aside", { aside, why });
    return emptyState;
  }
}
