/**
 * Policy: what a person asked for, as records in the cluster store. api is its only writer. Each
 * change is one compare-and-swap transaction over all it read, so that two changes at once can't
 * both take a name, or a clone be made twice.
 *
 *   policy/record/<kind>/<id>      the record
 *   policy/claim/<index>/<value>   -> "<kind>/<id>": names, MACs, UUIDs, claimed in the same revision
 */
import { z } from "zod";
import type { ClusterStore, Compare, Write } from "#lib/cluster-store/store.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  type RoleRecord,
  roleRecord,
  type SessionRecord,
  sessionRecord,
  type TokenRecord,
  tokenRecord,
  type UserRecord,
  userRecord,
} from "./account-records.ts";
import { type AuditTargetRecord, auditTargetRecord } from "./audit-target-schema.ts";
import {
  consoleAddressRecord,
  type IdentityProviderRecord,
  type IdentityRecord,
  identityProviderRecord,
  identityRecord,
  type SecurityKeyRecord,
  securityKeyRecord,
} from "./identity-schema.ts";
import { foreignFormats } from "./image-formats.ts";
import type { RecordSeal } from "./record-seal.ts";
import { netbootSettingsSchema } from "./schema.ts";
import {
  type ScheduleRecord,
  type SnapshotRecord,
  scheduleRecord,
  snapshotRecord,
} from "./snapshot-records.ts";

const id = z.string();
const time = z.string();

const volumeRecord = z.object({
  id,
  name: z.string(),
  kind: z.enum(["plain", "image", "client"]),
  state: z.enum(["creating", "ready", "deleting", "failed"]),
  failure: z.string().nullable(),
  sizeBytes: z.number(),
  parentVolumeId: z.string().nullable(),
  /** Cloned from this snapshot of `parentVolumeId`. Absent: of a sealed volume, or of none. */
  parentSnapshotId: z.string().optional(),
  /** Asked to become this snapshot; it is not exported meanwhile. */
  revertTo: z.string().optional(),
  /** Images: becomes read-only for good once its data is in. */
  sealed: z.boolean(),
  createdAt: time,
});

const imageRecord = z.object({
  id,
  name: z.string(),
  state: z.enum(["uploading", "importing", "ready", "failed", "deleting"]),
  format: z.enum(["auto", "raw", "qcow2"]),
  /** Of the file, where it is another one than these. */
  sourceFormat: z.enum(foreignFormats).optional(),
  sizeBytes: z.number().nullable(),
  volumeId: z.string().nullable(),
  failure: z.string().nullable(),
  createdAt: time,
});

const bootRecord = z.object({
  id,
  name: z.string(),
  mac: z.string().nullable(),
  uuid: z.string().nullable(),
  imageId: z.string(),
  cloneVolumeId: z.string().nullable(),
  targetIqn: z.string(),
  initiatorIqn: z.string(),
  chapUser: z.string(),
  chapSecret: z.string(),
  createdAt: time,
});

const exportRecord = z.object({
  id,
  name: z.string(),
  volumeId: z.string(),
  targetIqn: z.string(),
  initiators: z.array(z.string()),
  readOnly: z.boolean(),
  openToLoopback: z.boolean(),
  chapUser: z.string().nullable(),
  chapSecret: z.string().nullable(),
  createdAt: time,
});

/** `id` is the interface's name. */
const netbootRecord = z.object({ id, settings: netbootSettingsSchema });

/** Of each kind, as it stands in the cluster store. */
export const recordSchemas = {
  volume: volumeRecord,
  image: imageRecord,
  boot: bootRecord,
  export: exportRecord,
  netboot: netbootRecord,
  snapshot: snapshotRecord,
  "snapshot-schedule": scheduleRecord,
  user: userRecord,
  role: roleRecord,
  session: sessionRecord,
  token: tokenRecord,
  "identity-provider": identityProviderRecord,
  identity: identityRecord,
  "security-key": securityKeyRecord,
  "console-address": consoleAddressRecord,
  "audit-target": auditTargetRecord,
} as const;

export type VolumeRecord = z.infer<typeof volumeRecord>;
export type ImageRecord = z.infer<typeof imageRecord>;
export type BootRecord = z.infer<typeof bootRecord>;
export type ExportRecord = z.infer<typeof exportRecord>;
export type NetbootRecord = z.infer<typeof netbootRecord>;

export interface Records {
  volume: VolumeRecord;
  image: ImageRecord;
  boot: BootRecord;
  export: ExportRecord;
  netboot: NetbootRecord;
  snapshot: SnapshotRecord;
  "snapshot-schedule": ScheduleRecord;
  user: UserRecord;
  role: RoleRecord;
  session: SessionRecord;
  token: TokenRecord;
  "identity-provider": IdentityProviderRecord;
  identity: IdentityRecord;
  "security-key": SecurityKeyRecord;
  "console-address": z.infer<typeof consoleAddressRecord>;
  "audit-target": AuditTargetRecord;
}
export type Kind = keyof Records;

/** What may be said once: index -> value, and the words for whom it is taken. */
const claims: { [K in Kind]?: (record: Records[K]) => Record<string, string | null> } = {
  // Images and clients name their volumes after themselves; those names claim nothing.
  volume: ({ kind, name }) => ({ "volume-name": kind === "plain" ? name : null }),
  image: ({ name }) => ({ "image-name": name }),
  boot: ({ name, mac, uuid }) => ({ "boot-name": name, "boot-mac": mac, "boot-uuid": uuid }),
  export: ({ name }) => ({ "export-name": name }),
  snapshot: ({ name, volumeId }) => ({ "snapshot-name": `${name}@${volumeId}` }),
  "snapshot-schedule": ({ name }) => ({ "schedule-name": name }),
};

const claimWords: Record<string, string> = {
  "volume-name": "A volume with the name",
  "image-name": "An image with the name",
  "boot-name": "A boot entry with the name",
  "boot-mac": "A boot entry for the MAC address",
  "boot-uuid": "A boot entry for the UUID",
  "export-name": "An export with the name",
  "snapshot-name": "A snapshot of this volume with the name",
  "schedule-name": "A schedule with the name",
};

interface Cached {
  readonly text: string;
  readonly modRevision: number;
  readonly record: unknown;
  /** Why a secret of it can't be opened. */
  readonly locked?: string | undefined;
  /** It holds a secret in plain text. */
  readonly plain?: boolean;
}

/** A record whose secret can't be opened. */
export interface LockedRecord {
  readonly kind: Kind;
  readonly id: string;
  readonly why: string;
}

const prefix = "policy/";
const recordPrefix = `${prefix}record/`;
const claimPrefix = `${prefix}claim/`;
const attempts = 6;

function claimKeys<K extends Kind>(kind: K, record: Records[K]): string[] {
  const of = claims[kind] as ((record: Records[K]) => Record<string, string | null>) | undefined;
  return Object.entries(of?.(record) ?? {})
    .filter(([, value]) => value !== null)
    .map(([index, value]) => `${claimPrefix}${index}/${value!.toLowerCase()}`);
}

/** `boot` of `policy/record/boot/ID`; no kind of a claim's key. */
function kindOf(key: string): string {
  return key.slice(recordPrefix.length, key.indexOf("/", recordPrefix.length));
}

/** One change being made: what it reads is compared when it is committed. */
export class Draft {
  readonly #cache: ReadonlyMap<string, Cached>;
  readonly #compares = new Map<string, number>();
  readonly #seal: RecordSeal | undefined;
  readonly #writes = new Map<string, string | null>();
  readonly #written = new Map<string, unknown>();

  constructor(cache: ReadonlyMap<string, Cached>, seal: RecordSeal | undefined) {
    this.#cache = cache;
    this.#seal = seal;
  }

  get<K extends Kind>(kind: K, recordId: string): Records[K] | undefined {
    const key = `${recordPrefix}${kind}/${recordId}`;
    const written = this.#writes.get(key);
    if (written !== undefined) {
      return written === null ? undefined : (structuredClone(this.#written.get(key)) as Records[K]);
    }
    this.#compare(key);
    return this.#cache.get(key)?.record as Records[K] | undefined;
  }

  put<K extends Kind>(kind: K, record: Records[K]): void {
    const owner = `${kind}/${record.id}`;
    const before = this.get(kind, record.id);
    const keep = claimKeys(kind, record);
    for (const key of before === undefined ? [] : claimKeys(kind, before)) {
      if (!keep.includes(key)) this.#write(key, null);
    }
    for (const key of keep) {
      const holder = this.#writes.get(key) ?? this.#cache.get(key)?.text;
      if (holder !== undefined && holder !== null && holder !== owner) {
        const [, , index, claimed] = key.split("/");
        const [value] = claimed.split("@");
        throw new KeelsonError("ALREADY_EXISTS", `${claimWords[index]} ${value} exists already.`, {
          object: value,
          remedy: "Choose another one, or change the one that exists.",
        });
      }
      if (holder !== owner) this.#write(key, owner);
    }
    const key = recordPrefix + owner;
    const parsed = recordSchemas[kind].parse(record);
    this.#written.set(key, parsed);
    this.#write(key, JSON.stringify(this.#seal?.seal(key, kind, parsed) ?? parsed));
  }

  delete<K extends Kind>(kind: K, recordId: string): void {
    const before = this.get(kind, recordId);
    if (before === undefined) return;
    for (const key of claimKeys(kind, before)) this.#write(key, null);
    this.#write(`${recordPrefix}${kind}/${recordId}`, null);
  }

  #compare(key: string): void {
    this.#compares.set(key, this.#cache.get(key)?.modRevision ?? 0);
  }

  #write(key: string, value: string | null): void {
    this.#compare(key);
    this.#writes.set(key, value);
  }

  get compares(): Compare[] {
    return [...this.#compares].map(([key, modRevision]) => ({ key, modRevision }));
  }

  get writes(): Write[] {
    return [...this.#writes].map(([key, value]) =>
      value === null ? { delete: key } : { put: key, value },
    );
  }
}

export class Policy {
  readonly #store: ClusterStore;
  readonly #seal: RecordSeal | undefined;
  readonly #cache = new Map<string, Cached>();
  /** What `list` found, until a record of that kind changes. */
  readonly #lists = new Map<string, readonly unknown[]>();
  /** Deletions that the watch has yet to deliver: its older puts must not bring the keys back. */
  readonly #graves = new Map<string, number>();
  readonly #ended = new AbortController();
  readonly #listeners = new Set<() => void>();
  #revision = 0;

  private constructor(store: ClusterStore, seal: RecordSeal | undefined) {
    this.#store = store;
    this.#seal = seal;
  }

  /**
   * Reads all of it; then follows other writers' changes until closed. Without `seal` secrets stand
   * in plain text: for tests of what has none.
   */
  static async open(store: ClusterStore, seal?: RecordSeal): Promise<Policy> {
    const policy = new Policy(store, seal);
    await policy.#load();
    void policy.#follow();
    return policy;
  }

  /** Revision of the cluster store that this is of: the generation that services are given. */
  get revision(): number {
    return this.#revision;
  }

  /** In the order they were first seen. The same array until a record of this kind changes. */
  list<K extends Kind>(kind: K): readonly Records[K][] {
    let list = this.#lists.get(kind);
    if (list === undefined) {
      const wanted = `${recordPrefix}${kind}/`;
      list = [...this.#cache].flatMap(([key, { record }]) =>
        key.startsWith(wanted) ? [record] : [],
      );
      this.#lists.set(kind, list);
    }
    return list as readonly Records[K][];
  }

  find<K extends Kind>(kind: K, recordId: string): Records[K] | undefined {
    return this.#cache.get(`${recordPrefix}${kind}/${recordId}`)?.record as Records[K] | undefined;
  }

  /** NOT_FOUND with the kind and id. */
  get<K extends Kind>(kind: K, recordId: string): Records[K] {
    const record = this.find(kind, recordId);
    if (record !== undefined) return record;
    throw notFound(kind, recordId);
  }

  /** The holder of a claim such as ("boot-mac", "52:54:00:12:34:56"). */
  claimant<K extends Kind>(kind: K, index: string, value: string): Records[K] | undefined {
    const holder = this.#cache.get(`${claimPrefix}${index}/${value.toLowerCase()}`)?.text;
    return holder === undefined ? undefined : this.find(kind, holder.slice(kind.length + 1));
  }

  /**
   * Makes a change: `edit` may run several times, each on the newest records, so it does nothing
   * but read and write its draft. What it throws is thrown, with nothing written.
   */
  async change<Result>(edit: (draft: Draft) => Result): Promise<Result> {
    for (let attempt = 0; attempt < attempts; attempt++) {
      const draft = new Draft(this.#cache, this.#seal);
      const result = edit(draft);
      const { writes } = draft;
      if (writes.length === 0) return result;
      const { done, revision } = await this.#store.transact(draft.compares, writes);
      if (!done) {
        await this.#load();
        continue;
      }
      for (const write of writes) {
        if ("put" in write) this.#remember(write.put, write.value, revision);
        else this.#forget(write.delete, revision);
      }
      this.#advance(revision);
      return result;
    }
    throw new KeelsonError("CONFLICT", "Somebody else keeps changing the same thing.", {
      remedy: "Try again.",
    });
  }

  /** Records with a secret that this node's key doesn't open. */
  locked(): LockedRecord[] {
    return [...this.#cache].flatMap(([key, { locked }]) => {
      if (locked === undefined) return [];
      const [, , kind, recordId] = key.split("/");
      return [{ kind: kind as Kind, id: recordId, why: locked }];
    });
  }

  /** Seals secrets that an older release wrote in plain text; how many records that were. */
  async sealPlain(): Promise<number> {
    if (this.#seal === undefined) return 0;
    const plain = [...this.#cache].filter(([, cached]) => cached.plain === true);
    for (const [key] of plain) {
      const [, , kind, recordId] = key.split("/") as [string, string, Kind, string];
      await this.change((draft) => {
        const record = draft.get(kind, recordId);
        if (record !== undefined) draft.put(kind, record);
      });
    }
    return plain.length;
  }

  /** Told after each change, whoever made it, until the function returned is called. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#ended.abort();
  }

  async #load(): Promise<void> {
    const { entries, revision } = await this.#store.list(prefix);
    const keys = new Set(entries.map(({ key }) => key));
    for (const key of this.#cache.keys()) if (!keys.has(key)) this.#drop(key);
    for (const { key, value, modRevision } of entries) this.#remember(key, value, modRevision);
    this.#advance(revision);
  }

  async #follow(): Promise<void> {
    let next = this.#revision + 1;
    while (!this.#ended.signal.aborted) {
      try {
        for await (const step of this.#store.watch(prefix, next, this.#ended.signal)) {
          if (step.kind === "compacted") {
            await this.#load();
            next = this.#revision + 1;
            break;
          }
          for (const change of step.changes) {
            if (change.kind === "put") this.#remember(change.key, change.value, step.revision);
            else this.#forget(change.key, step.revision);
          }
          next = step.revision + 1;
          this.#forgetGraves(step.revision);
          this.#advance(step.revision);
        }
      } catch {
        // A store that is away is seen by whoever changes policy; here it is only tried again.
      }
      if (this.#ended.signal.aborted) return;
      await new Promise((resolve) => setTimeout(resolve, 1000).unref());
    }
  }

  #remember(key: string, text: string, modRevision: number): void {
    if (Math.max(this.#cache.get(key)?.modRevision ?? 0, this.#graves.get(key) ?? 0) >= modRevision)
      return;
    const record = key.startsWith(recordPrefix) ? parseRecord(key, text, this.#seal) : {};
    this.#cache.set(key, { text, modRevision, record: undefined, ...record });
    this.#lists.delete(kindOf(key));
  }

  #drop(key: string): void {
    this.#cache.delete(key);
    this.#lists.delete(kindOf(key));
  }

  #forget(key: string, revision: number): void {
    this.#graves.set(key, revision);
    const known = this.#cache.get(key);
    if (known !== undefined && known.modRevision < revision) this.#drop(key);
  }

  #forgetGraves(delivered: number): void {
    for (const [key, revision] of this.#graves) {
      if (revision <= delivered) this.#graves.delete(key);
    }
  }

  #advance(revision: number): void {
    if (revision <= this.#revision) return;
    this.#revision = revision;
    for (const listener of this.#listeners) listener();
  }
}

function parseRecord(
  key: string,
  text: string,
  seal?: RecordSeal,
): Omit<Cached, "text" | "modRevision"> {
  const kind = key.split("/")[2] as Kind;
  // A kind of a newer release, after the way back to this one: kept as it is.
  if (!Object.hasOwn(recordSchemas, kind))
    return { record: undefined, locked: undefined, plain: false };
  const stored: unknown = JSON.parse(text);
  const opened = seal?.open(key, kind, stored) ?? { value: stored, why: undefined, plain: false };
  const parsed = recordSchemas[kind].safeParse(opened.value);
  if (parsed.success) return { record: parsed.data, locked: opened.why, plain: opened.plain };
  throw new KeelsonError("FORMAT_CORRUPT", `The policy record ${key} can't be read.`, {
    operation: "read policy",
    object: key,
    remedy: "It was written by a newer release, or by hand: delete or mend it.",
  });
}

const kindWords: Record<Kind, string> = {
  volume: "volume",
  image: "image",
  boot: "boot entry",
  export: "export",
  netboot: "network interface",
  snapshot: "snapshot",
  "snapshot-schedule": "snapshot schedule",
  user: "user",
  role: "role",
  session: "session",
  token: "API token",
  "identity-provider": "identity provider",
  identity: "identity",
  "security-key": "security key",
  "console-address": "console address",
  "audit-target": "target of audit heads",
};

export function notFound(kind: Kind, recordId: string): KeelsonError {
  return new KeelsonError("NOT_FOUND", `There is no ${kindWords[kind]} ${recordId}.`, {
    object: recordId,
  });
}
