/**
 * The volumes and snapshots of a simulated life: made, cloned, reverted and deleted at random, each
 * with its model; and what of them may be there after a crash.
 */
import { isKeelsonError } from "#lib/model/errors.ts";
import type { Random } from "#lib/sim/random.ts";
import { findDifferences, type State } from "#services/chunk-store/engine/differences.ts";
import type { Store } from "#services/chunk-store/engine/store.ts";
import type { View } from "#services/chunk-store/engine/transfer.ts";
import { chunkBlocks, sectorsPerBlock } from "#services/chunk-store/limits.ts";
import { VolumeModel } from "./model.ts";
import type { SimCounts } from "./run.ts";

/** What a population asks of the simulation that it lives in. */
export interface Life {
  readonly random: Random;
  readonly counts: SimCounts;
  readonly store: Store;
  /** False if the store retired. */
  flushNow(): boolean;
  fail(what: string): never;
}

export const volumeBytes = 48 * 2 ** 20;
/** After a crash the volume is as it was, or as its snapshot. */
interface Reverting {
  readonly model: VolumeModel;
  readonly reverted: VolumeModel;
  readonly lineageBefore: number;
}

const mostVolumes = 6;
const mostSnapshots = 8;

export class Population {
  models: VolumeModel[] = [];
  /** Of each model, for batches. */
  readonly views: (View | undefined)[] = [];
  private readonly life: Life;
  private nextUuid = 1;
  /** Volumes and snapshots with this number or a later one may be missing after a crash. */
  private unsureFrom = 1;
  /** Snapshots being made at one instant: all of them are there after a crash, or none. */
  private group: VolumeModel[] = [];
  private reverting: Reverting | undefined;

  constructor(life: Life) {
    this.life = life;
  }

  private newUuid(): string {
    return `00000000-0000-4000-8000-${(this.nextUuid++).toString(16).padStart(12, "0")}`;
  }

  private get volumes(): VolumeModel[] {
    return this.models.filter(({ isSnapshot }) => !isSnapshot);
  }

  private get snapshots(): VolumeModel[] {
    return this.models.filter(({ isSnapshot }) => isSnapshot);
  }

  createVolume(): void {
    if (this.volumes.length >= mostVolumes) return;
    this.addVolume(null);
  }

  cloneVolume(): void {
    const origin = this.life.random.pick(this.models);
    if (this.volumes.length >= mostVolumes) return;
    if (!origin.sealed) {
      if (!this.life.flushNow()) return;
      this.life.store.sealVolume(this.viewOf(origin).lineage);
      origin.sealed = true;
      if (!this.life.flushNow()) return;
    }
    this.life.counts.clones++;
    this.addVolume(origin);
  }

  private addVolume(parent: VolumeModel | null): void {
    this.unsureFrom = this.nextUuid;
    const model = new VolumeModel(this.newUuid(), volumeBytes, parent);
    if (
      !this.change(() =>
        this.life.store.createVolume(model.uuid, volumeBytes, this.stateOf(parent)),
      )
    ) {
      return;
    }
    this.models.push(model);
    this.openAll();
    this.settle();
  }

  /** One volume or several, at one instant. */
  snapshot(): void {
    const open = this.volumes.filter(({ sealed }) => !sealed);
    const some = open.filter(() => this.life.random.oneIn(2));
    if (some.length === 0 || this.snapshots.length + some.length > mostSnapshots) return;
    this.unsureFrom = this.nextUuid;
    this.group = some.map((model) => {
      const snapshot = new VolumeModel(this.newUuid(), volumeBytes, model);
      snapshot.isSnapshot = true;
      snapshot.sealed = true;
      return snapshot;
    });
    const wanted = some.map((model, i) => ({
      lineage: this.viewOf(model).lineage,
      uuid: this.group[i].uuid,
    }));
    this.life.counts.snapshots += some.length;
    const made = this.change(() => this.life.store.createSnapshots(wanted, 1_700_000_000_000));
    if (made) this.models.push(...this.group);
    if (this.life.store.failure === null) this.group = [];
    if (!made) return;
    this.openAll();
    this.settle();
  }

  revert(): void {
    const snapshot = this.snapshots.length > 0 ? this.life.random.pick(this.snapshots) : undefined;
    if (snapshot === undefined) return;
    const view = this.viewOf(snapshot);
    const model = this.volumes.find(({ uuid }) => uuid === view.lineage.uuid);
    if (model === undefined) return;
    const { lineage } = this.viewOf(model);
    this.life.counts.reverts++;
    const reverted = new VolumeModel(model.uuid, volumeBytes, snapshot);
    this.reverting = { model, reverted, lineageBefore: lineage.number };
    if (!this.change(() => this.life.store.revertVolume(lineage, view.snapshot!))) return;
    this.models[this.models.indexOf(model)] = reverted;
    this.openAll();
    if (this.settle()) this.reverting = undefined;
  }

  deleteOne(): void {
    const model = this.life.random.pick(this.models);
    this.life.counts.deletions++;
    const view = this.viewOf(model);
    this.models = this.models.filter((other) => other !== model);
    this.change(() => this.remove(view));
    this.openAll();
    this.settle();
  }

  private remove({ lineage, snapshot }: View): void {
    if (snapshot === null) this.life.store.deleteVolume(lineage);
    else this.life.store.deleteSnapshot(snapshot);
  }

  /** What the store says has changed is at least what has. */
  compare(): void {
    const later = this.life.random.pick(this.models);
    const earlier = this.life.random.oneIn(4) ? null : this.life.random.pick(this.models);
    const [from, to] = [this.stateOf(earlier), this.stateOf(later)!];
    const changed = new Set<number>();
    try {
      for (let chunk: number | null = 0; chunk !== null; ) {
        const { ranges, nextChunk } = findDifferences(this.life.store, from, to, chunk, 3);
        for (const { first, count } of ranges) {
          for (let i = 0; i < count; i++) changed.add(first + i);
        }
        chunk = nextChunk;
      }
    } catch (error) {
      if (isKeelsonError(error, "CONFLICT")) return;
      throw error;
    }
    this.life.counts.comparisons++;
    const sectors = new Set([...later.sectors, ...(earlier?.sectors ?? [])]);
    for (const sector of sectors) {
      const before = earlier?.expected(sector) ?? 0;
      if (before === later.expected(sector) || changed.has(Math.floor(sector / sectorsPerBlock)))
        continue;
      const chunk = Math.floor(sector / sectorsPerBlock / chunkBlocks);
      this.life.fail(
        `the change of sector ${sector} (chunk ${chunk}) of ${later.uuid} is not told`,
      );
    }
  }

  /** False if the store is full or has retired. */
  private change(action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      if (isKeelsonError(error, "NO_SPACE") || isKeelsonError(error, "STORE_FAILED")) return false;
      throw error;
    }
  }

  /** What was changed is durable; false if the store retired. */
  private settle(): boolean {
    if (!this.life.flushNow()) return false;
    this.unsureFrom = this.nextUuid;
    return true;
  }

  private viewOf(model: VolumeModel): View {
    const { byUuid, snapshots } = this.life.store.lineages;
    const snapshot = model.isSnapshot ? snapshots.get(model.uuid) : undefined;
    const lineage = model.isSnapshot ? snapshot?.lineage : byUuid.get(model.uuid);
    if (lineage === undefined) this.life.fail(`${model.uuid} is gone`);
    return { lineage, snapshot: snapshot ?? null };
  }

  private stateOf(model: VolumeModel | null): State | null {
    if (model === null) return null;
    const { lineage, snapshot } = this.viewOf(model);
    return { lineage, epoch: snapshot?.epoch ?? lineage.epoch };
  }

  private openAll(): void {
    this.views.length = 0;
    for (const model of this.models) this.views.push(this.viewOf(model));
  }

  removeAll(): void {
    const views = this.models.map((model) => this.viewOf(model));
    this.models = [];
    for (const view of views) this.remove(view);
  }

  /**
   * After a crash: a volume that was being made or deleted when the power went is there or not, and
   * both are right.
   */
  match(): void {
    const { byUuid, snapshots } = this.life.store.lineages;
    const isThere = ({ uuid, isSnapshot }: VolumeModel) =>
      isSnapshot ? snapshots.has(uuid) : byUuid.has(uuid);
    const survivors = this.group.filter(isThere);
    if (survivors.length > 0 && survivors.length < this.group.length) {
      this.life.fail(`of a group of ${this.group.length} snapshots ${survivors.length} are there`);
    }
    for (const model of survivors) if (!this.models.includes(model)) this.models.push(model);
    this.group = [];
    if (this.reverting !== undefined) {
      const { model, reverted, lineageBefore } = this.reverting;
      const at = this.models.findIndex(({ uuid }) => uuid === model.uuid);
      const isBefore = byUuid.get(model.uuid)?.number === lineageBefore;
      if (at >= 0) this.models[at] = isBefore ? model : reverted;
      this.reverting = undefined;
    }
    this.models = this.models.filter((model) => {
      if (isThere(model)) return true;
      const mayBeMissing = Number.parseInt(model.uuid.slice(-12), 16) >= this.unsureFrom;
      if (!mayBeMissing) this.life.fail(`${model.uuid} is gone after a crash`);
      return false;
    });
    const known = new Set(this.models.map((model) => model.uuid));
    for (const lineage of [...byUuid.values()]) {
      if (!known.has(lineage.uuid)) this.life.store.deleteVolume(lineage);
    }
    for (const snapshot of [...snapshots.values()]) {
      if (!known.has(snapshot.uuid)) this.life.store.deleteSnapshot(snapshot);
    }
    for (const model of this.volumes) model.sealed = byUuid.get(model.uuid)!.sealed;
    this.openAll();
  }
}
