/**
 * What api says and accepts, in one place: the console, `keelson` and netboot are written against
 * these types, and the OpenAPI document is made from these schemas.
 *
 * Public, over TLS, under /api/v1 (who may call: each route says it, permissions.ts):
 *
 *   POST   /session                   LogIn -> Session                      sets the cookie too
 *   GET    /session                   -> SessionInfo
 *   users, roles, tokens, sessions: accounts-schema.ts
 *   GET    /ping                      -> Ping
 *   GET    /openapi.json
 *   GET    /node                      -> Node
 *   GET    /store                     -> Store
 *   GET    /volumes                   -> Volume[]
 *   POST   /volumes                   VolumeCreate -> Volume
 *   GET    /volumes/{id}              -> Volume
 *   PATCH  /volumes/{id}              VolumeChange -> Volume
 *   DELETE /volumes/{id}              -> 204                      ?snapshots=delete: they go too
 *   snapshots, schedules of them: snapshot-schema.ts
 *   GET    /images                    -> Image[]
 *   POST   /images                    ImageCreate -> Image        state "uploading": now PUT its data
 *   PUT    /images/{id}/data          the file's bytes -> Task    answers when the upload is spooled;
 *                                     with Content-Range: all from Image.receivedBytes on
 *   GET    /images/{id}               -> Image
 *   DELETE /images/{id}               -> 204
 *   GET    /boot-entries              -> BootEntry[]
 *   POST   /boot-entries              BootEntryCreate -> BootEntry
 *   GET    /boot-entries/{id}         -> BootEntry
 *   PATCH  /boot-entries/{id}         BootEntryChange -> BootEntry
 *   POST   /boot-entries/{id}/reset   -> BootEntry                the next boot starts from a new clone
 *   DELETE /boot-entries/{id}         -> 204                      its clone goes too
 *   GET    /clients                   -> Client[]
 *   DELETE /clients/{mac}             -> 204                      forget what was observed
 *   GET    /exports                   -> Export[]
 *   POST   /exports                   ExportCreate -> ExportCreated  the only answer with the secret
 *   GET    /exports/{id}              -> Export
 *   PATCH  /exports/{id}              ExportChange -> Export
 *   DELETE /exports/{id}              -> 204
 *   GET    /netboot                   -> Netboot
 *   PUT    /netboot                   NetbootChange -> Netboot
 *   GET    /conditions                -> Condition[]
 *   PUT    /conditions/{id}/mute      ConditionMute -> Condition
 *   GET    /tasks                     -> Task[]                   newest first
 *   GET    /tasks/{id}                -> Task
 *   DELETE /tasks/{id}                -> 204                      cancels it
 *   GET    /events                    server-sent events: see ApiEvent
 *
 * Errors are problem documents (lib/rpc/problem.ts). A browser is known by its cookie and must send
 * an Origin of this site with each change; other callers send `Authorization: Bearer TOKEN`.
 *
 * Internal, on <run>/internal.sock: boot-schema.ts.
 */
import { z } from "zod";
import { parseIqn, parseMacAddress, parseUuid } from "#lib/model/ids.ts";
import { imageFormats } from "./image-formats.ts";

export type { LogIn, Session, SessionInfo } from "./accounts-schema.ts";

/** Longest a person's text may be, in characters. */
const nameLength = 63;

function parsed<Value extends string>(
  parse: (text: string) => Value | undefined,
  what: string,
  example: string,
) {
  return z
    .string()
    .max(300)
    .transform((text, context): Value => {
      const value = parse(text);
      if (value !== undefined) return value;
      context.addIssue({
        code: "custom",
        message: `"${text}" is not ${what}; give one like ${example}.`,
      });
      return z.NEVER;
    })
    .meta({ type: "string", example });
}

export const uuidSchema = parsed(parseUuid, "a UUID", "4c4c4544-0042-4810-8054-b7c04f463132");
export const macSchema = parsed(parseMacAddress, "a MAC address", "52:54:00:12:34:56");
export const iqnSchema = parsed(parseIqn, "an iSCSI name", "iqn.2026-11.org.example:host");

/** Names of volumes, images, exports and boot entries. Unique in their kind. */
export const nameSchema = z
  .string()
  .regex(
    /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/,
    `A name is 1 to ${nameLength} of letters, digits, '.', '_' and '-', and starts and ends with a letter or digit.`,
  );

/** ISO 8601, UTC. */
const time = z.string().meta({ format: "date-time" });

export const volumeSectorBytes = 4096;
export const maxVolumeBytes = 64 * 2 ** 40;

const sizeSchema = z
  .number()
  .int()
  .min(1 << 20, "A volume is at least 1 MiB.")
  .max(maxVolumeBytes, "A volume is at most 64 TiB.")
  .refine((bytes) => bytes % volumeSectorBytes === 0, "A size is a multiple of 4096 bytes.");

export const pingSchema = z.object({ status: z.literal("ok") }).meta({ id: "Ping" });

// ---- node and store

export const serviceStateSchema = z.object({
  name: z.enum(["api", "cluster-store", "chunk-store", "iscsi-target", "netboot"]),
  /** `off`: this node is not asked to run it. */
  state: z.enum(["running", "unreachable", "off"]),
  version: z.string().nullable(),
  /** Why it isn't running, or what it says of itself. */
  message: z.string().nullable(),
  /** The policy generation it has applied; null where there is none. */
  generation: z.number().int().nullable(),
});

export const nodeSchema = z
  .object({
    name: z.string(),
    id: z.string().nullable(),
    version: z.string(),
    /** Built with the throw-away key, or run from the source tree: shown on every screen. */
    devBuild: z.boolean(),
    addresses: z.array(
      z.object({ interface: z.string(), mac: z.string().nullable(), address: z.string() }),
    ),
    /** Of the machine, by CLOCK_BOOTTIME. */
    uptimeMs: z.number(),
    bootedAt: time,
    time,
    clockSynchronised: z.boolean().nullable(),
    /** SHA-256 of the CA above the served certificate, for a first log-in by hand; null without TLS. */
    certificateFingerprint: z.string().nullable(),
    portals: z.array(z.string()),
    services: z.array(serviceStateSchema),
  })
  .meta({ id: "Node" });

export const storeSchema = z
  .object({
    state: z.enum(["ready", "failed", "unreachable"]),
    /** Why it failed or can't be reached. */
    message: z.string().nullable(),
    storeId: z.string().nullable(),
    device: z.string().nullable(),
    sizeBytes: z.number().nullable(),
    usedBytes: z.number().nullable(),
    freeBytes: z.number().nullable(),
    /** Its parts add up to `sizeBytes`. */
    space: z
      .object({
        /** What volumes hold as they are now. */
        volumesBytes: z.number(),
        /** What only snapshots still hold. */
        snapshotsBytes: z.number(),
        /** Of deleted volumes and snapshots: seen by clones, or being freed. */
        hiddenBytes: z.number(),
        /** The log, the map, and what is kept back for a full store. */
        metadataBytes: z.number(),
        freeBytes: z.number(),
      })
      .nullable(),
    volumeCount: z.number().int().nullable(),
    /** The on-disk format may still change. */
    experimental: z.boolean(),
    /** When these figures were read; null if never. */
    observedAt: time.nullable(),
  })
  .meta({ id: "Store" });

// ---- volumes

export const volumeUserSchema = z.object({
  kind: z.enum(["image", "boot-entry", "export"]),
  id: z.string(),
  name: z.string(),
});

export const volumeSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    /** `plain` was made by hand, `image` holds an image, `client` is a boot entry's clone. */
    kind: z.enum(["plain", "image", "client"]),
    state: z.enum(["creating", "ready", "deleting", "failed"]),
    failure: z.string().nullable(),
    sizeBytes: z.number(),
    /** Null while the store can't be asked. */
    allocatedBytes: z.number().nullable(),
    readOnly: z.boolean(),
    /** The image or volume that it was cloned from. */
    parentVolumeId: z.string().nullable(),
    /** The snapshot of it that it was cloned from. */
    parentSnapshotId: z.string().nullable(),
    /** Null while the store can't be asked, as what only its snapshots still hold. */
    snapshotCount: z.number().int().nullable(),
    snapshotBytes: z.number().nullable(),
    usedBy: z.array(volumeUserSchema),
    createdAt: time,
  })
  .meta({ id: "Volume" });

export const volumeCreateSchema = z
  .strictObject({
    name: nameSchema,
    sizeBytes: sizeSchema.optional(),
    /** Clone of this image (or of a sealed volume): size may be left out, or be larger. */
    fromImageId: uuidSchema.optional(),
    /** Clone of a snapshot, likewise. */
    origin: z.strictObject({ snapshotId: uuidSchema }).optional(),
  })
  .refine((body) => body.sizeBytes !== undefined || body.fromImageId || body.origin, {
    message: "Give sizeBytes, or fromImageId or origin for a clone.",
  })
  .refine((body) => body.fromImageId === undefined || body.origin === undefined, {
    message: "Give fromImageId or origin, not both.",
  })
  .meta({ id: "VolumeCreate" });

export const volumeChangeSchema = z
  .strictObject({ name: nameSchema.optional(), sizeBytes: sizeSchema.optional() })
  .meta({ id: "VolumeChange" });

// ---- images

export const imageSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    state: z.enum(["uploading", "importing", "ready", "failed", "deleting"]),
    /** What was found in the file; before that, what was said of it. */
    format: z.enum(["auto", ...imageFormats]),
    /** Of the file that is being uploaded: a broken upload goes on here. Null otherwise. */
    receivedBytes: z.number().nullable(),
    /** Size of the disk in it; null until known. */
    sizeBytes: z.number().nullable(),
    volumeId: z.string().nullable(),
    taskId: z.string().nullable(),
    /** Why the import failed, and what to do. */
    failure: z.string().nullable(),
    bootEntryCount: z.number().int(),
    createdAt: time,
  })
  .meta({ id: "Image" });

export const imageCreateSchema = z
  .strictObject({ name: nameSchema, format: z.enum(["auto", ...imageFormats]).default("auto") })
  .meta({ id: "ImageCreate" });

// ---- boot entries and clients

export const bootEntrySchema = z
  .object({
    id: z.string(),
    name: z.string(),
    mac: z.string().nullable(),
    uuid: z.string().nullable(),
    imageId: z.string(),
    imageName: z.string().nullable(),
    /** The client's own thin clone; null before its first boot. */
    cloneVolumeId: z.string().nullable(),
    cloneState: z.enum(["none", "creating", "ready", "failed"]),
    targetIqn: z.string(),
    initiatorIqn: z.string(),
    /** The secret itself is never shown: the client gets it at boot. */
    chap: z.enum(["set", "none"]),
    createdAt: time,
  })
  .meta({ id: "BootEntry" });

const bootIdentity = { mac: macSchema.optional(), uuid: uuidSchema.optional() };

export const bootEntryCreateSchema = z
  .strictObject({ name: nameSchema, imageId: uuidSchema, ...bootIdentity })
  .refine((body) => body.mac !== undefined || body.uuid !== undefined, {
    message: "Give the client's mac or uuid, or both.",
  })
  .meta({ id: "BootEntryCreate" });

export const bootEntryChangeSchema = z
  .strictObject({
    name: nameSchema.optional(),
    mac: macSchema.nullable().optional(),
    uuid: uuidSchema.nullable().optional(),
    /** Takes effect with a new clone: the old one is deleted at the next boot. */
    imageId: uuidSchema.optional(),
  })
  .meta({ id: "BootEntryChange" });

export const bootStages = ["dhcp", "loader", "script", "san", "os"] as const;
export type BootStage = (typeof bootStages)[number];

export const clientSchema = z
  .object({
    mac: z.string(),
    uuid: z.string().nullable(),
    /** IPv4 address it was last seen with. */
    address: z.string().nullable(),
    /** `bios`, `uefi-x64`, ...; as netboot names it. */
    arch: z.string().nullable(),
    /** Stages of the current boot, in order of time; a new boot starts the list anew. */
    stages: z.array(
      z.object({ stage: z.enum(bootStages), at: time, detail: z.string().nullable() }),
    ),
    /** The furthest stage of the current boot. */
    stage: z.enum(bootStages).nullable(),
    firstSeenAt: time,
    lastSeenAt: time,
    lastSeenAgeMs: z.number(),
    /** Null: unknown here, nothing boots it. */
    bootEntryId: z.string().nullable(),
    bootEntryName: z.string().nullable(),
    /** iSCSI sessions open now. */
    sessionCount: z.number().int(),
    /** Why its last attempt went no further; null when all is well. */
    failure: z.string().nullable(),
  })
  .meta({ id: "Client" });

// ---- exports

export const exportSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    volumeId: z.string(),
    volumeName: z.string().nullable(),
    targetIqn: z.string(),
    initiators: z.array(z.string()),
    readOnly: z.boolean(),
    /** Development only: whoever connects from this machine. */
    openToLoopback: z.boolean(),
    chapUser: z.string().nullable(),
    /** `ready` once iscsi-target serves it. */
    state: z.enum(["ready", "pending", "failed"]),
    message: z.string().nullable(),
    sessionCount: z.number().int().nullable(),
    portals: z.array(z.string()),
    createdAt: time,
  })
  .meta({ id: "Export" });

const chapRequest = z.union([
  z.strictObject({ kind: z.literal("none") }),
  /** Name and secret are made here and shown once. */
  z.strictObject({ kind: z.literal("generate") }),
  z.strictObject({
    kind: z.literal("given"),
    user: z.string().min(1).max(255),
    secret: z
      .string()
      .min(12, "A CHAP secret has at least 12 characters.")
      .max(255)
      .regex(/^[\x21-\x7e]+$/, "A CHAP secret is printable ASCII without spaces."),
  }),
]);

export const exportCreateSchema = z
  .strictObject({
    name: nameSchema,
    volumeId: uuidSchema,
    initiators: z.array(iqnSchema).max(1024).default([]),
    readOnly: z.boolean().default(false),
    openToLoopback: z.boolean().default(false),
    chap: chapRequest.default({ kind: "generate" }),
  })
  .meta({ id: "ExportCreate" });

export const exportCreatedSchema = exportSchema
  .extend({ chapSecret: z.string().nullable() })
  .meta({ id: "ExportCreated" });

export const exportChangeSchema = z
  .strictObject({ initiators: z.array(iqnSchema).max(1024) })
  .meta({ id: "ExportChange" });

// ---- network boot

const ipv4 = z.ipv4({ message: "Give an IPv4 address like 10.77.0.1." });

export const netbootSettingsSchema = z
  .strictObject({
    /** `server`: the segment's DHCP server; `proxy`: beside another one; `off`: nothing. */
    mode: z.enum(["server", "proxy", "off"]),
    /** What `server` leases. */
    pool: z.strictObject({ first: ipv4, last: ipv4 }).nullable().default(null),
    gateway: ipv4.nullable().default(null),
    dns: z.array(ipv4).max(8).default([]),
    leaseSeconds: z.number().int().min(120).max(604_800).default(3600),
  })
  .refine((settings) => settings.mode !== "server" || settings.pool !== null, {
    message: "A DHCP server needs a pool of addresses.",
  });

export const netbootChangeSchema = z
  .strictObject({
    interface: z.string().regex(/^[\w.:@-]{1,15}$/),
    settings: netbootSettingsSchema,
  })
  .meta({ id: "NetbootChange" });

export const netbootSchema = z
  .object({
    service: z.enum(["running", "unreachable", "off"]),
    message: z.string().nullable(),
    interfaces: z.array(
      z.object({
        name: z.string(),
        mac: z.string().nullable(),
        address: z.string().nullable(),
        prefixLength: z.number().int().nullable(),
        settings: netbootSettingsSchema,
        /** Other DHCP servers heard on the segment. */
        otherServers: z.array(z.string()),
        message: z.string().nullable(),
      }),
    ),
  })
  .meta({ id: "Netboot" });

// ---- conditions and tasks

export const severities = ["critical", "warning", "notice", "info"] as const;

/** A fault's code; `status` true means that the fault is there. */
export const conditionSchema = z
  .object({
    /** `CODE` or `CODE:subject`. */
    id: z.string(),
    code: z.string(),
    /** What it is about: a service, an image, an interface; null for the node. */
    subject: z.string().nullable(),
    status: z.enum(["true", "false", "unknown"]),
    severity: z.enum(severities),
    title: z.string(),
    /** Why the status is what it is. */
    reason: z.string(),
    remedy: z.string().nullable(),
    /** First and last time it was seen with this status. */
    since: time,
    lastSeenAt: time,
    mutedUntil: time.nullable(),
  })
  .meta({ id: "Condition" });

export const conditionMuteSchema = z
  .strictObject({
    seconds: z
      .number()
      .int()
      .min(0)
      .max(30 * 86_400),
  })
  .meta({ id: "ConditionMute" });

export const taskSchema = z
  .object({
    id: z.string(),
    kind: z.enum(["image-import"]),
    /** What it is about: the image's id. */
    subject: z.string(),
    title: z.string(),
    state: z.enum(["running", "done", "failed", "cancelled"]),
    /** What it does now: `upload`, `check`, `convert`, `seal`. */
    phase: z.string(),
    /** 0 to 100 in this phase; null when unknown. */
    progressPercent: z.number().nullable(),
    /** Of an upload. */
    bytesDone: z.number().nullable(),
    bytesTotal: z.number().nullable(),
    failure: z.string().nullable(),
    startedAt: time,
    endedAt: time.nullable(),
  })
  .meta({ id: "Task" });

// ---- events

/** Of accounts and log-in. */
export const accountResources = [
  "users",
  "roles",
  "sessions",
  "tokens",
  "session/identities",
  "session/security-keys",
  "identity-provider",
  "console-address",
  "settings/audit-target",
] as const;
export type AccountResource = (typeof accountResources)[number];

export const eventResources = [
  "node",
  "store",
  "volumes",
  "images",
  "boot-entries",
  "clients",
  "exports",
  "snapshots",
  "snapshot-schedules",
  "netboot",
  "conditions",
  "tasks",
  "upgrade",
  ...accountResources,
] as const;
export type EventResource = (typeof eventResources)[number];

/**
 * `event: change`, `id: <opaque>`: a resource changed. `value` is the same document that GET gives,
 * null after a removal; a singleton (node, store, netboot, upgrade, identity-provider, console-address,
 * settings/audit-target) has the id "". Who may get a resource hears of it; sessions, tokens and what
 * begins with session/ are told to whose they are. After a gap that can't be filled the first event is `event: reset`, data `{}`: fetch everything again. Comments keep the
 * connection alive each 15 s.
 */
export interface ApiEvent {
  readonly resource: EventResource;
  readonly id: string;
  readonly value: unknown;
}

export type ServiceState = z.infer<typeof serviceStateSchema>;
export type Node = z.infer<typeof nodeSchema>;
export type Store = z.infer<typeof storeSchema>;
export type Volume = z.infer<typeof volumeSchema>;
export type VolumeUser = z.infer<typeof volumeUserSchema>;
export type VolumeCreate = z.infer<typeof volumeCreateSchema>;
export type VolumeChange = z.infer<typeof volumeChangeSchema>;
export type Image = z.infer<typeof imageSchema>;
export type ImageCreate = z.infer<typeof imageCreateSchema>;
export type BootEntry = z.infer<typeof bootEntrySchema>;
export type BootEntryCreate = z.infer<typeof bootEntryCreateSchema>;
export type BootEntryChange = z.infer<typeof bootEntryChangeSchema>;
export type Client = z.infer<typeof clientSchema>;
export type Export = z.infer<typeof exportSchema>;
export type ExportCreate = z.infer<typeof exportCreateSchema>;
export type ExportCreated = z.infer<typeof exportCreatedSchema>;
export type ExportChange = z.infer<typeof exportChangeSchema>;
export type NetbootSettings = z.infer<typeof netbootSettingsSchema>;
export type NetbootChange = z.infer<typeof netbootChangeSchema>;
export type Netboot = z.infer<typeof netbootSchema>;
export type Condition = z.infer<typeof conditionSchema>;
export type Task = z.infer<typeof taskSchema>;
