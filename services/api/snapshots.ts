/**
 * Snapshots: made, named, held, deleted; volumes that go back to one.
 *
 * A snapshot is of an instant, so it is made while its caller waits, unlike a volume, which the
 * reconciler makes when it can. The order, and what an end of api in between leaves:
 *
 *   1. records, state `creating`, all of the group in one transaction
 *        -> at the next start the store has none of them: the records go. Nobody was answered.
 *   2. the store makes all of them in one log record, durable when it answers
 *        -> the store has them: the records become `ready`. Nothing was acknowledged, nothing is lost.
 *   3. records, state `ready`
 *   4. the answer
 *
 * The store never has a snapshot without a record, so none is ever unseen; one that came another way
 * (policy restored from yesterday, a call that the store carried out after api gave it up) is adopted.
 * Deleting goes the other way round: `deleting` in the record, the store, then the record.
 * While 1 to 3 run, the reconciler takes no steps about snapshots (`SnapshotCalls`): what it saw of
 * the store may be older than the record. `snapshot-steps.ts` has the table.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import type { SnapshotInfo } from "#services/chunk-store/schema.ts";
import { makeChapSecret, makeIqn } from "./boot.ts";
import type { Clock } from "./clock.ts";
import type { StorePeer } from "./peers.ts";
import {
  type Draft,
  type ExportRecord,
  notFound,
  type Policy,
  type VolumeRecord,
} from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";
import type { SnapshotRecord } from "./snapshot-records.ts";
import type {
  Differences,
  SnapshotAttach,
  SnapshotChange,
  SnapshotCreate,
  VolumeRevert,
} from "./snapshot-schema.ts";

/** Calls that make snapshots, so that the reconciler knows when its sight of them is whole. */
export class SnapshotCalls {
  #running = 0;
  #ended = 0;

  async around<Result>(call: () => Promise<Result>): Promise<Result> {
    this.#running++;
    try {
      return await call();
    } finally {
      this.#running--;
      this.#ended++;
    }
  }

  /** Null: one is under way. */
  mark(): number | null {
    return this.#running > 0 ? null : this.#ended;
  }

  quietSince(mark: number | null): boolean {
    return mark !== null && this.mark() === mark;
  }
}

export interface SnapshotsOptions {
  readonly policy: Policy;
  readonly reconciler: Reconciler;
  readonly store: StorePeer;
  readonly calls: SnapshotCalls;
  readonly clock: Clock;
}

/** How long an answer waits for the reconciler. */
const patienceMs = 3_000;
const revertPatienceMs = 15_000;
const countMs = 2_000;
const nameLength = 63;

export class Snapshots {
  readonly #options: SnapshotsOptions;

  constructor(options: SnapshotsOptions) {
    this.#options = options;
  }

  /** All of one instant, or none. */
  async create(body: SnapshotCreate, scheduleId: string | null = null): Promise<SnapshotRecord[]> {
    const { policy, store, calls } = this.#options;
    try {
      return await calls.around(async () => {
        const asked = await policy.change((draft) => this.#begin(draft, body, scheduleId));
        const wanted = asked.map(({ id, volumeId }) => ({ id, volume: volumeId }));
        const made = await store.createSnapshots({ snapshots: wanted });
        const infos = new Map(made.map((info) => [info.id, info]));
        return await policy.change((draft) =>
          asked.map(({ id }) => finish(draft, id, infos.get(id))),
        );
      });
    } finally {
      // Also after a failure: what was begun is dropped, or found to have happened.
      await this.#settled();
    }
  }

  #begin(draft: Draft, body: SnapshotCreate, scheduleId: string | null): SnapshotRecord[] {
    const groupId = randomUUID();
    return body.volumes.map((volumeId) => {
      const volume = draft.get("volume", volumeId);
      if (volume === undefined || volume.state === "deleting") throw notFound("volume", volumeId);
      if (volume.kind === "image" || volume.sealed) {
        throw new KeelsonError("CONFLICT", `${volume.name} never changes.`, {
          object: volumeId,
          remedy: "Clone the image itself.",
        });
      }
      if (volume.state !== "ready") {
        throw new KeelsonError("CONFLICT", `${volume.name} is not ready (${volume.state}).`, {
          object: volumeId,
          remedy: "Wait until it is.",
        });
      }
      // Written, though nothing changes: its deletion at the same moment then looks again.
      draft.put("volume", volume);
      const record: SnapshotRecord = {
        id: randomUUID(),
        name: body.name,
        description: body.description,
        volumeId,
        groupId,
        state: "creating",
        hold: false,
        scheduleId,
        sizeBytes: volume.sizeBytes,
        createdAt: this.#options.clock.now(),
      };
      draft.put("snapshot", record);
      return record;
    });
  }

  async change(id: string, body: SnapshotChange): Promise<SnapshotRecord> {
    return await this.#options.policy.change((draft) => {
      const before = draft.get("snapshot", id);
      if (before === undefined || before.state === "deleting") throw notFound("snapshot", id);
      const next: SnapshotRecord = {
        ...before,
        name: body.name ?? before.name,
        description: body.description ?? before.description,
        hold: body.hold ?? before.hold,
      };
      draft.put("snapshot", next);
      return next;
    });
  }

  /** IN_USE while it is held or open. Clones keep what they see. */
  async delete(id: string): Promise<void> {
    const { policy } = this.#options;
    const { name } = policy.get("snapshot", id);
    const openCount = (await this.#info(id))?.openCount ?? 0;
    if (openCount > 0) {
      throw new KeelsonError("IN_USE", `The snapshot ${name} is open ${openCount} times.`, {
        object: id,
        remedy: "End what reads it, such as a backup, first.",
      });
    }
    await policy.change((draft) => {
      const record = draft.get("snapshot", id);
      if (record === undefined) throw notFound("snapshot", id);
      draft.put("snapshot", deletable(record));
    });
    await this.#settled();
  }

  /** Undefined: not there, or the store can't be asked, which the reconciler then finds out. */
  async #info(id: string): Promise<SnapshotInfo | undefined> {
    const infos = await this.#options.store.snapshots().catch(() => []);
    return infos.find((info) => info.id === id);
  }

  /**
   * The volume becomes what the snapshot is. Its export, if it is a client's disk, is away meanwhile.
   * The wish stands in policy until it is carried out; it is withdrawn if it can't be in 15 s, so
   * that no volume goes back hours later, when nobody expects it.
   */
  async revert(id: string, body: VolumeRevert): Promise<SnapshotRecord | null> {
    const { policy, reconciler } = this.#options;
    const name = this.#revertable(policy.get("volume", id), body.snapshotId).name;
    const kept = body.keepPresent
      ? (
          await this.create({
            volumes: [id],
            name: `before-revert-${stamp(Date.parse(this.#options.clock.now()))}`,
            description: `What was there before it went back to ${name}.`,
          })
        )[0]
      : null;
    try {
      await policy.change((draft) => {
        const volume = draft.get("volume", id);
        if (volume === undefined) throw notFound("volume", id);
        this.#revertable(volume, body.snapshotId);
        draft.put("volume", { ...volume, revertTo: body.snapshotId });
      });
      const deadline = performance.now() + revertPatienceMs;
      for (;;) {
        await reconciler.settle();
        if (policy.get("volume", id).revertTo === undefined) return kept;
        if (performance.now() > deadline) throw await this.#withdraw(id);
        await delay(200);
      }
    } catch (error) {
      if (kept !== null) await this.delete(kept.id).catch(() => {});
      throw error;
    }
  }

  async #withdraw(id: string): Promise<KeelsonError> {
    const { policy, reconciler } = this.#options;
    await policy.change((draft) => {
      const { revertTo: _wish, ...volume } = draft.get("volume", id) ?? {};
      if ("id" in volume) draft.put("volume", volume as VolumeRecord);
    });
    const why = reconciler.problems.find(({ object }) => object === id)?.reason;
    return new KeelsonError("IN_USE", why ?? "The store does not answer.", {
      operation: "revert volume",
      object: id,
      remedy: "Nothing was changed. Mend that, then try again.",
    });
  }

  #revertable(volume: VolumeRecord, snapshotId: string): SnapshotRecord {
    const { policy, reconciler } = this.#options;
    const { id, name } = volume;
    const snapshot = policy.get("snapshot", snapshotId);
    const refuse = (code: "CONFLICT" | "IN_USE", why: string, remedy: string) =>
      new KeelsonError(code, why, { operation: "revert volume", object: id, remedy });
    if (snapshot.volumeId !== id) {
      throw refuse("CONFLICT", `${snapshot.name} is no snapshot of ${name}.`, "Clone it instead.");
    }
    if (snapshot.state !== "ready" || volume.state !== "ready") {
      const [what, state] =
        volume.state === "ready" ? [snapshot.name, snapshot.state] : [name, volume.state];
      throw refuse("CONFLICT", `${what} is not ready (${state}).`, "Wait until it is.");
    }
    const exports = policy.list("export").filter(({ volumeId }) => volumeId === id);
    if (exports.length > 0) {
      const names = exports.map((entry) => entry.name).join(", ");
      throw refuse(
        "IN_USE",
        `${name} is exported as ${names}.`,
        "Delete the export first: its users would not know that the disk changed.",
      );
    }
    const { sessions } = reconciler.observation;
    for (const boot of policy.list("boot")) {
      if (boot.cloneVolumeId !== id || sessions.quality === "bad") continue;
      if (!sessions.value.sessions.some(({ initiator }) => initiator === boot.initiatorIqn))
        continue;
      throw refuse(
        "IN_USE",
        `The machine of ${boot.name} is running from ${name}.`,
        "Shut it down first.",
      );
    }
    return snapshot;
  }

  /** A clone under a name of its own, exported to one initiator, in one transaction. */
  async attach(id: string, { initiator, chap }: SnapshotAttach): Promise<ExportRecord> {
    const { policy, clock } = this.#options;
    const record = await policy.change((draft) => {
      const snapshot = readySnapshot(draft, id);
      const of = draft.get("volume", snapshot.volumeId)?.name ?? "volume";
      const name = freeName(policy, `${of}-${snapshot.name}`);
      const volumeId = randomUUID();
      draft.put("volume", cloneOf(snapshot, { id: volumeId, name, createdAt: clock.now() }));
      const exportId = randomUUID();
      const entry: ExportRecord = {
        id: exportId,
        name,
        volumeId,
        targetIqn: makeIqn("disk", name, exportId),
        initiators: [initiator],
        // A file system that was in use is mended when it is mounted: that is a write.
        readOnly: false,
        openToLoopback: false,
        chapUser: chap === "none" ? null : `disk-${exportId.slice(0, 8)}`,
        chapSecret: chap === "none" ? null : makeChapSecret(),
        createdAt: clock.now(),
      };
      draft.put("export", entry);
      return entry;
    });
    await this.#settled();
    return record;
  }

  /** Which ranges changed since `from`; with the first page also how much in all. */
  async differences(
    id: string,
    from: string,
    to: string | undefined,
    after: number,
  ): Promise<Differences> {
    const { policy, store } = this.#options;
    const volume = policy.get("volume", id);
    for (const snapshotId of [from, ...(to === undefined ? [] : [to])]) {
      const { name, volumeId } = policy.get("snapshot", snapshotId);
      if (volumeId === id) continue;
      throw new KeelsonError("CONFLICT", `${name} is no snapshot of ${volume.name}.`, {
        object: snapshotId,
        remedy: "Give two states of one volume.",
      });
    }
    const ask = (at: number) => store.differences(from, to ?? id, at);
    const page = await ask(after);
    if (after > 0) return { ...page, ranges: [...page.ranges], changedBytes: null };
    const deadline = performance.now() + countMs;
    let changedBytes: number | null = bytesOf(page.ranges);
    for (let next = page.next; next !== null; ) {
      if (performance.now() > deadline) {
        changedBytes = null;
        break;
      }
      const more = await ask(next);
      changedBytes += bytesOf(more.ranges);
      next = more.next;
    }
    return { ...page, ranges: [...page.ranges], changedBytes };
  }

  async #settled(): Promise<void> {
    const ended = new AbortController();
    const late = delay(patienceMs, undefined, { signal: ended.signal }).catch(() => {});
    await Promise.race([this.#options.reconciler.settle(), late]);
    ended.abort();
  }
}

function finish(draft: Draft, id: string, info: SnapshotInfo | undefined): SnapshotRecord {
  const record = draft.get("snapshot", id);
  // Its volume was deleted with all its snapshots meanwhile.
  if (record === undefined) throw notFound("snapshot", id);
  if (record.state !== "creating" || info === undefined) return record;
  const { sizeBytes, createdAt } = info;
  const ready: SnapshotRecord = { ...record, state: "ready", sizeBytes, createdAt };
  draft.put("snapshot", ready);
  return ready;
}

/** The record as it is deleted; IN_USE if it is held. */
export function deletable(record: SnapshotRecord): SnapshotRecord {
  if (!record.hold) return { ...record, state: "deleting" };
  throw new KeelsonError("IN_USE", `The snapshot ${record.name} is held.`, {
    object: record.id,
    remedy: "Release it first, if nobody needs it any more.",
  });
}

export function readySnapshot(draft: Draft, id: string): SnapshotRecord {
  const snapshot = draft.get("snapshot", id);
  if (snapshot === undefined) throw notFound("snapshot", id);
  if (snapshot.state === "ready") return snapshot;
  throw new KeelsonError("CONFLICT", `${snapshot.name} can't be used (${snapshot.state}).`, {
    object: id,
    remedy: "Take another snapshot.",
  });
}

export function cloneOf(
  snapshot: SnapshotRecord,
  own: Pick<VolumeRecord, "id" | "name" | "createdAt"> & { readonly sizeBytes?: number },
): VolumeRecord {
  return {
    kind: "plain",
    state: "creating",
    failure: null,
    parentVolumeId: snapshot.volumeId,
    parentSnapshotId: snapshot.id,
    sealed: false,
    ...own,
    sizeBytes: own.sizeBytes ?? snapshot.sizeBytes,
  };
}

/** `20261128T020000Z`: sorts by time, and may stand in a name. */
export function stamp(atMs: number): string {
  return new Date(atMs).toISOString().replaceAll(/[-:]|\.\d+/g, "");
}

/** As near to `wanted` as a name may be that neither a volume nor an export has. */
function freeName(policy: Policy, wanted: string): string {
  for (let n = 1; ; n++) {
    const suffix = n === 1 ? "" : `-${n}`;
    const name = wanted.slice(0, nameLength - suffix.length).replace(/[^A-Za-z0-9]+$/, "") + suffix;
    const taken =
      policy.claimant("volume", "volume-name", name) ??
      policy.claimant("export", "export-name", name);
    if (taken === undefined) return name;
  }
}

function bytesOf(ranges: readonly { readonly lengthBytes: number }[]): number {
  return ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
}
