/** The changes of policy that a person may make, with what refuses them and why. */
import { randomUUID } from "node:crypto";
import { KeelsonError } from "#lib/model/errors.ts";
import { makeChapSecret, makeIqn } from "./boot.ts";
import type { Clock } from "./clock.ts";
import { checkNetbootChange, type NetbootInterface } from "./netboot-policy.ts";
import {
  type BootRecord,
  type Draft,
  type ExportRecord,
  notFound,
  type Policy,
  type VolumeRecord,
} from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";
import type {
  BootEntryChange,
  BootEntryCreate,
  ExportChange,
  ExportCreate,
  NetbootChange,
  VolumeChange,
  VolumeCreate,
} from "./schema.ts";
import type { SnapshotRecord } from "./snapshot-records.ts";
import { cloneOf, deletable, readySnapshot } from "./snapshots.ts";

export interface ChangeOptions {
  readonly policy: Policy;
  readonly reconciler: Reconciler;
  readonly clock: Clock;
  readonly netbootInterfaces: () => readonly NetbootInterface[];
  /** How long an answer waits for the services; the change goes on without it. */
  readonly patienceMs?: number;
}

const snapshotsAtOnce = 100;

export class Changes {
  readonly #options: ChangeOptions;

  constructor(options: ChangeOptions) {
    this.#options = options;
  }

  /** Makes it, then gives the services a moment, so that most answers show the outcome. */
  async #change<Result>(edit: (draft: Draft) => Result): Promise<Result> {
    const { policy, reconciler, patienceMs } = this.#options;
    const result = await policy.change(edit);
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, patienceMs ?? 3_000);
    await Promise.race([reconciler.settle(), late]);
    clearTimeout(timer);
    return result;
  }

  async createVolume(body: VolumeCreate): Promise<VolumeRecord> {
    const { policy, clock } = this.#options;
    const id = randomUUID();
    await this.#change((draft) => {
      if (body.origin !== undefined) {
        const snapshot = readySnapshot(draft, body.origin.snapshotId);
        requireGrowth(snapshot, body.sizeBytes);
        const own = { id, name: body.name, createdAt: clock.now() };
        const size = body.sizeBytes === undefined ? {} : { sizeBytes: body.sizeBytes };
        draft.put("volume", cloneOf(snapshot, { ...own, ...size }));
        return;
      }
      const parent = body.fromImageId === undefined ? null : originOf(policy, body.fromImageId);
      const sizeBytes = body.sizeBytes ?? parent!.sizeBytes;
      if (parent !== null) requireGrowth(parent, sizeBytes);
      draft.put("volume", {
        id,
        name: body.name,
        kind: "plain",
        state: "creating",
        failure: null,
        sizeBytes,
        parentVolumeId: parent?.id ?? null,
        sealed: false,
        createdAt: clock.now(),
      });
    });
    return policy.get("volume", id);
  }

  async changeVolume(id: string, body: VolumeChange): Promise<VolumeRecord> {
    await this.#change((draft) => {
      const volume = needed(draft.get("volume", id), "volume", id);
      if (volume.kind !== "plain") throw ownedVolume(volume);
      if (volume.state === "deleting") throw notFound("volume", id);
      const sizeBytes = body.sizeBytes ?? volume.sizeBytes;
      if (sizeBytes < volume.sizeBytes) {
        throw new KeelsonError("INVALID_ARGUMENT", "A volume only grows.", {
          object: id,
          remedy: `Give at least ${volume.sizeBytes} bytes, or make a new volume.`,
        });
      }
      draft.put("volume", { ...volume, name: body.name ?? volume.name, sizeBytes });
    });
    return this.#options.policy.get("volume", id);
  }

  /** With `snapshots` they go too; without, IN_USE while there are any. */
  async deleteVolume(id: string, snapshots = false): Promise<void> {
    const { policy } = this.#options;
    // A transaction has room for so many; the last ones go with the volume itself.
    while (snapshots && this.#snapshotsOf(id).length > snapshotsAtOnce) {
      await policy.change((draft) => {
        const volume = needed(draft.get("volume", id), "volume", id);
        this.#refuseWhileUsed(volume);
        this.#requireNoHold(volume);
        for (const snapshot of this.#snapshotsOf(id).slice(0, snapshotsAtOnce)) {
          draft.put("snapshot", deletable(snapshot));
        }
      });
    }
    await this.#change((draft) => {
      const volume = needed(draft.get("volume", id), "volume", id);
      this.#refuseWhileUsed(volume);
      if (!snapshots) this.#requireNoSnapshots(volume);
      this.#requireNoHold(volume);
      for (const snapshot of this.#snapshotsOf(id)) draft.put("snapshot", deletable(snapshot));
      draft.put("volume", { ...volume, state: "deleting" });
      for (const schedule of this.#options.policy.list("snapshot-schedule")) {
        if (!schedule.volumeIds.includes(id)) continue;
        const volumeIds = schedule.volumeIds.filter((each) => each !== id);
        draft.put("snapshot-schedule", { ...schedule, volumeIds });
      }
    });
  }

  #refuseWhileUsed({ kind, name, id, ...volume }: VolumeRecord): void {
    if (kind !== "plain") throw ownedVolume({ kind, name, id, ...volume });
    const exports = this.#options.policy.list("export").filter(({ volumeId }) => volumeId === id);
    if (exports.length === 0) return;
    const names = exports.map((entry) => entry.name).join(", ");
    throw new KeelsonError("IN_USE", `The volume ${name} is exported as ${names}.`, {
      object: id,
      remedy: "Delete the export first.",
    });
  }

  #snapshotsOf(id: string): SnapshotRecord[] {
    return this.#options.policy
      .list("snapshot")
      .filter(({ volumeId, state }) => volumeId === id && state !== "deleting");
  }

  #requireNoSnapshots({ id, name }: VolumeRecord): void {
    const { length } = this.#snapshotsOf(id);
    if (length === 0) return;
    const count = length === 1 ? "a snapshot" : `${length} snapshots`;
    throw new KeelsonError("IN_USE", `The volume ${name} has ${count}.`, {
      object: id,
      remedy: "Delete them first, or ask for it with ?snapshots=delete: then they go too.",
    });
  }

  #requireNoHold({ id, name }: VolumeRecord): void {
    const held = this.#snapshotsOf(id).filter(({ hold }) => hold);
    if (held.length === 0) return;
    const names = held.slice(0, 5).map((snapshot) => snapshot.name);
    throw new KeelsonError(
      "IN_USE",
      `${held.length} snapshots of ${name} are held: ${names.join(", ")}${held.length > 5 ? ", ..." : ""}.`,
      { object: id, remedy: "Release them first, if nobody needs them any more." },
    );
  }

  async createBootEntry(body: BootEntryCreate): Promise<BootRecord> {
    const { policy, clock } = this.#options;
    const id = randomUUID();
    await this.#change((draft) => {
      needed(draft.get("image", body.imageId), "image", body.imageId);
      draft.put("boot", {
        id,
        name: body.name,
        mac: body.mac ?? null,
        uuid: body.uuid ?? null,
        imageId: body.imageId,
        cloneVolumeId: null,
        targetIqn: makeIqn("boot", body.name, id),
        initiatorIqn: makeIqn("host", body.name, id),
        chapUser: `boot-${id.slice(0, 8)}`,
        chapSecret: makeChapSecret(),
        createdAt: clock.now(),
      });
    });
    return policy.get("boot", id);
  }

  async changeBootEntry(id: string, body: BootEntryChange): Promise<BootRecord> {
    await this.#change((draft) => {
      const boot = needed(draft.get("boot", id), "boot", id);
      const mac = body.mac === undefined ? boot.mac : body.mac;
      const uuid = body.uuid === undefined ? boot.uuid : body.uuid;
      if (mac === null && uuid === null) {
        throw new KeelsonError("INVALID_ARGUMENT", "A boot entry needs a MAC address or a UUID.", {
          object: id,
          remedy: "Give one before you take the other away.",
        });
      }
      const imageId = body.imageId ?? boot.imageId;
      needed(draft.get("image", imageId), "image", imageId);
      const next = { ...boot, name: body.name ?? boot.name, mac, uuid, imageId };
      draft.put("boot", imageId === boot.imageId ? next : this.#withoutClone(draft, next));
    });
    return this.#options.policy.get("boot", id);
  }

  async resetBootEntry(id: string): Promise<BootRecord> {
    await this.#change((draft) => {
      const boot = needed(draft.get("boot", id), "boot", id);
      this.#refuseWhileRunning(boot);
      draft.put("boot", this.#withoutClone(draft, boot));
    });
    return this.#options.policy.get("boot", id);
  }

  async deleteBootEntry(id: string): Promise<void> {
    await this.#change((draft) => {
      const boot = needed(draft.get("boot", id), "boot", id);
      this.#refuseWhileRunning(boot);
      this.#withoutClone(draft, boot);
      draft.delete("boot", id);
    });
  }

  #withoutClone(draft: Draft, boot: BootRecord): BootRecord {
    const clone = boot.cloneVolumeId === null ? undefined : draft.get("volume", boot.cloneVolumeId);
    if (clone === undefined) return { ...boot, cloneVolumeId: null };
    this.#refuseWhileRunning(boot);
    this.#requireNoSnapshots(clone);
    draft.put("volume", { ...clone, state: "deleting" });
    return { ...boot, cloneVolumeId: null };
  }

  /** A running machine would lose its disk under its feet. */
  #refuseWhileRunning(boot: BootRecord): void {
    const { sessions } = this.#options.reconciler.observation;
    if (sessions.quality === "bad") return;
    const open = sessions.value.sessions.some(({ initiator }) => initiator === boot.initiatorIqn);
    if (!open) return;
    throw new KeelsonError("IN_USE", `The machine of ${boot.name} is running from its disk.`, {
      object: boot.id,
      remedy: "Shut it down first.",
    });
  }

  async createExport(body: ExportCreate): Promise<ExportRecord> {
    const { policy, clock } = this.#options;
    const id = randomUUID();
    const chap = body.chap;
    if (body.initiators.length === 0 && !body.openToLoopback) {
      throw new KeelsonError("INVALID_ARGUMENT", "Nobody could use this export.", {
        remedy: "Name the initiators that may.",
      });
    }
    await this.#change((draft) => {
      const volume = needed(draft.get("volume", body.volumeId), "volume", body.volumeId);
      if (volume.state === "deleting") throw notFound("volume", body.volumeId);
      if (volume.kind === "client") throw ownedVolume(volume);
      draft.put("export", {
        id,
        name: body.name,
        volumeId: body.volumeId,
        targetIqn: makeIqn("disk", body.name, id),
        initiators: body.initiators,
        readOnly: body.readOnly || volume.sealed || volume.kind === "image",
        openToLoopback: body.openToLoopback,
        chapUser:
          chap.kind === "none"
            ? null
            : chap.kind === "given"
              ? chap.user
              : `disk-${id.slice(0, 8)}`,
        chapSecret:
          chap.kind === "none" ? null : chap.kind === "given" ? chap.secret : makeChapSecret(),
        createdAt: clock.now(),
      });
    });
    return policy.get("export", id);
  }

  async changeExport(id: string, body: ExportChange): Promise<ExportRecord> {
    await this.#change((draft) => {
      const entry = needed(draft.get("export", id), "export", id);
      draft.put("export", { ...entry, initiators: body.initiators });
    });
    return this.#options.policy.get("export", id);
  }

  async deleteExport(id: string): Promise<void> {
    await this.#change((draft) => {
      needed(draft.get("export", id), "export", id);
      draft.delete("export", id);
    });
  }

  async changeNetboot(body: NetbootChange): Promise<void> {
    checkNetbootChange(body, this.#options.netbootInterfaces());
    await this.#change((draft) =>
      draft.put("netboot", { id: body.interface, settings: body.settings }),
    );
  }
}

function needed<Value>(
  record: Value | undefined,
  kind: Parameters<typeof notFound>[0],
  id: string,
): Value {
  if (record === undefined) throw notFound(kind, id);
  return record;
}

function originOf(policy: Policy, imageId: string): VolumeRecord {
  const image = policy.get("image", imageId);
  if (image.state === "ready" && image.volumeId !== null)
    return policy.get("volume", image.volumeId);
  throw new KeelsonError("CONFLICT", `The image ${image.name} is not ready (${image.state}).`, {
    object: imageId,
    remedy: "Wait for its import to end.",
  });
}

function requireGrowth(origin: { readonly sizeBytes: number }, sizeBytes?: number): void {
  if (sizeBytes === undefined || sizeBytes >= origin.sizeBytes) return;
  throw new KeelsonError(
    "INVALID_ARGUMENT",
    `A clone is at least as large as what it is cloned from (${origin.sizeBytes} bytes).`,
    { remedy: "Give a larger size, or none." },
  );
}

function ownedVolume({ kind, name, id }: VolumeRecord): KeelsonError {
  const owner = kind === "image" ? "an image" : "a boot entry";
  return new KeelsonError("IN_USE", `The volume belongs to ${owner}, ${name}.`, {
    object: id,
    remedy:
      kind === "image" ? "Delete the image instead." : "Reset or delete the boot entry instead.",
  });
}
