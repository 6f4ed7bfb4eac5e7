/**
 * What the control API asks of the thread that owns the store. Changes are answered once they are
 * durable: after the flush that follows them.
 */
import { type ErrorCode, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import { uuidText } from "./engine/layout.ts";
import { type Lineage, snapshotAt } from "./engine/lineages.ts";
import { scrubStep } from "./engine/scrub.ts";
import type { Store } from "./engine/store.ts";
import { blockBytes } from "./limits.ts";
import type { PutVolume, StoreInfo, VolumeInfo } from "./schema.ts";
import { findSnapshot, handleSnapshots, type SnapshotMessage } from "./snapshot-control.ts";

export type ControlMessage =
  | { readonly kind: "store" }
  | { readonly kind: "volumes" }
  | { readonly kind: "volume"; readonly id: string }
  | { readonly kind: "put"; readonly id: string; readonly body: PutVolume }
  | { readonly kind: "seal"; readonly id: string }
  | { readonly kind: "grow"; readonly id: string; readonly sizeBytes: number }
  | { readonly kind: "delete"; readonly id: string; readonly force: boolean }
  | { readonly kind: "format"; readonly format: number }
  | { readonly kind: "scrub"; readonly from: number }
  | SnapshotMessage;

export type ControlReply =
  | { readonly value: unknown }
  | {
      readonly error: {
        readonly code: ErrorCode;
        readonly message: string;
        readonly object?: string;
        readonly remedy?: string;
      };
    };

export function handleControl(
  store: Store,
  message: ControlMessage,
  answer: (reply: ControlReply) => void,
): void {
  const whenDurable = (value: () => unknown): undefined => {
    store.flush((ok) => {
      if (ok) answer({ value: value() });
      else answer(asReply(() => store.requireMounted()));
    });
    return undefined;
  };
  const reply = asReply(() => {
    switch (message.kind) {
      case "store":
        return { value: storeInfo(store) };
      case "volumes":
        return {
          value: volumeInfos(store, store.lineages.byUuid.values()),
        };
      case "volume":
        return { value: volumeInfo(store, findVolume(store, message.id)) };
      case "put": {
        const lineage = putVolume(store, message.id, message.body);
        return whenDurable(() => volumeInfo(store, lineage));
      }
      case "seal": {
        const lineage = findVolume(store, message.id);
        if (!lineage.sealed) store.sealVolume(lineage);
        return whenDurable(() => volumeInfo(store, lineage));
      }
      case "grow": {
        const lineage = growVolume(store, message.id, message.sizeBytes);
        return whenDurable(() => volumeInfo(store, lineage));
      }
      case "delete": {
        deleteVolume(store, message.id, message.force);
        return whenDurable(() => null);
      }
      case "format":
        store.raiseFormat(message.format);
        return { value: null };
      case "scrub":
        store.requireMounted();
        return { value: scrubStep(store, message.from) };
      default:
        return handleSnapshots(store, message, whenDurable);
    }
  });
  if (reply !== undefined) answer(reply);
}

/** The KeelsonError that a reply carries, thrown; or its value. */
export function unwrapReply(reply: ControlReply): unknown {
  if ("value" in reply) return reply.value;
  const { code, message, ...details } = reply.error;
  throw new KeelsonError(code, message, details);
}

function asReply<Reply extends ControlReply | undefined>(
  action: () => Reply | undefined,
): ControlReply | undefined;
function asReply(action: () => void): ControlReply;
function asReply(action: () => unknown): ControlReply | undefined {
  try {
    return action() as ControlReply | undefined;
  } catch (error) {
    if (!isKeelsonError(error)) {
      const why = error instanceof Error ? error.message : String(error);
      return { error: { code: "INTERNAL", message: `The store met an internal error: ${why}.` } };
    }
    const { code, message, object, remedy } = error;
    return {
      error: {
        code,
        message,
        ...(object === undefined ? {} : { object }),
        ...(remedy === undefined ? {} : { remedy }),
      },
    };
  }
}

export function findVolume(store: Store, id: string): Lineage {
  store.requireMounted();
  const lineage = store.lineages.byUuid.get(id);
  if (lineage !== undefined) return lineage;
  throw new KeelsonError("NOT_FOUND", `There is no volume ${id} in this store.`, { object: id });
}

function putVolume(store: Store, id: string, body: PutVolume): Lineage {
  store.requireMounted();
  const existing = store.lineages.byUuid.get(id);
  const parentId = "parent" in body ? body.parent : null;
  const snapshotId = "snapshot" in body ? body.snapshot : null;
  if (existing !== undefined) {
    const { parent, snapshot } = originOf(existing);
    const sameOrigin = snapshot === snapshotId && (snapshotId !== null || parent === parentId);
    const sameSize = body.sizeBytes === undefined || body.sizeBytes === existing.sizeBytes;
    if (sameOrigin && sameSize) return existing;
    throw new KeelsonError(
      "CONFLICT",
      `Volume ${id} exists with ${formatSize(existing.sizeBytes)}${parent === null ? "" : `, a clone of ${snapshot ?? parent}`}.`,
      { operation: "create volume", object: id, remedy: "PATCH its size, or take another id." },
    );
  }
  if (snapshotId !== null) {
    const snapshot = findSnapshot(store, snapshotId);
    const sizeBytes = body.sizeBytes ?? snapshot.sizeBytes;
    requireGrowth("clone snapshot", id, snapshot.sizeBytes, sizeBytes);
    return store.createVolume(id, sizeBytes, snapshot);
  }
  if (parentId === null) return store.createVolume(id, body.sizeBytes!, null);
  const parent = store.lineages.byUuid.get(parentId);
  if (parent === undefined) {
    throw new KeelsonError("NOT_FOUND", `There is no volume ${parentId} to clone.`, {
      operation: "clone volume",
      object: parentId,
    });
  }
  if (!parent.sealed) {
    throw new KeelsonError("CONFLICT", `Volume ${parentId} is not sealed.`, {
      operation: "clone volume",
      object: parentId,
      remedy: "Clone a snapshot of it, or seal it first: then it never changes again.",
    });
  }
  const sizeBytes = body.sizeBytes ?? parent.sizeBytes;
  requireGrowth("clone volume", id, parent.sizeBytes, sizeBytes);
  return store.createVolume(id, sizeBytes, { lineage: parent, epoch: parent.epoch });
}

function growVolume(store: Store, id: string, sizeBytes: number): Lineage {
  const lineage = findVolume(store, id);
  if (lineage.sealed && sizeBytes !== lineage.sizeBytes) {
    throw new KeelsonError("CONFLICT", `Volume ${id} is sealed.`, {
      operation: "resize volume",
      object: id,
      remedy: "Make a larger clone of it.",
    });
  }
  requireGrowth("resize volume", id, lineage.sizeBytes, sizeBytes);
  if (sizeBytes !== lineage.sizeBytes) store.growVolume(lineage, sizeBytes);
  return lineage;
}

function requireGrowth(operation: string, id: string, from: number, to: number): void {
  if (to >= from) return;
  throw new KeelsonError(
    "INVALID_ARGUMENT",
    `${formatSize(to)} is smaller than ${formatSize(from)}: a volume can't shrink.`,
    { operation, object: id, remedy: `Give at least ${from} bytes.` },
  );
}

function deleteVolume(store: Store, id: string, force: boolean): void {
  store.requireMounted();
  const lineage = store.lineages.byUuid.get(id);
  if (lineage === undefined) return;
  if (lineage.openCount > 0 && !force) {
    throw new KeelsonError("IN_USE", `Volume ${id} is open.`, {
      operation: "delete volume",
      object: id,
      remedy: "Take its export away first, or force it: its users then get errors.",
    });
  }
  store.deleteVolume(lineage);
}

export function storeInfo(store: Store): StoreInfo {
  const space = store.space();
  return {
    id: uuidText(store.superblock.store),
    pool: uuidText(store.superblock.pool),
    device: store.device,
    state: store.failure === null ? "mounted" : "failed",
    reason: store.failure,
    sizeBytes: space.bytes(space.device),
    usedBytes: space.bytes(space.used),
    hiddenBytes: space.bytes(hiddenBlocks(store)),
    metadataBytes: space.bytes(space.metadata),
    reclaimingBytes: space.bytes(space.reclaiming),
    reservedBytes: space.bytes(space.reserved),
    freeBytes: space.bytes(space.free),
    formatVersion: store.superblock.format,
    experimental: true,
    mountGeneration: store.superblock.mountGeneration,
    flushesRequested: store.flushesRequested,
    flushesDone: store.flushesDone,
    checkpoints: store.checkpoints,
    checksumErrors: store.checksumErrors,
  };
}

/** Blocks that no visible volume or snapshot accounts for. */
function hiddenBlocks({ lineages }: Store): number {
  let seen = 0;
  for (const lineage of lineages.byNumber.values()) {
    if (!lineage.deleted) seen += lineage.ownedBlocks;
    else if (lineage.snapshots.some(({ deleted }) => !deleted)) {
      const { cells, epoch } = lineage;
      for (const { birth, blocks } of cells) if (lineage.headless || birth < epoch) seen += blocks;
    }
  }
  return lineages.usedBlocks() - seen;
}

/** What it was cloned from. A volume that went back to a snapshot is still the one that it was. */
function originOf(lineage: Lineage) {
  let { parent, forkEpoch } = lineage;
  while (parent?.uuid === lineage.uuid) ({ parent, forkEpoch } = parent);
  const snapshot = parent === null ? undefined : snapshotAt(parent, forkEpoch);
  return { parent: parent?.uuid ?? null, snapshot: snapshot?.uuid ?? null };
}

function volumeInfo(store: Store, lineage: Lineage): VolumeInfo {
  return volumeInfos(store, [lineage])[0];
}

function volumeInfos({ lineages }: Store, volumes: Iterable<Lineage>): VolumeInfo[] {
  const snapshots = new Map<string, number>();
  for (const { lineage } of lineages.snapshots.values()) {
    snapshots.set(lineage.uuid, (snapshots.get(lineage.uuid) ?? 0) + 1);
  }
  return Array.from(volumes, (lineage) => {
    const alive = lineage.cells.newest().reduce((sum, { blocks }) => sum + blocks, 0);
    return {
      id: lineage.uuid,
      sizeBytes: lineage.sizeBytes,
      usedBytes: alive * blockBytes,
      snapshotBytes: (lineage.ownedBlocks - alive) * blockBytes,
      ...originOf(lineage),
      snapshots: snapshots.get(lineage.uuid) ?? 0,
      sealed: lineage.sealed,
      readOnly: lineage.sealed,
      clones: lineage.children,
      openCount: lineage.openCount,
    };
  });
}
