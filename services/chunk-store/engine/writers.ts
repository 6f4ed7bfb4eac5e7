/**
 * Who may write a volume, and what its group has had flushed.
 *
 *   claim   one writer at a time: a later one has a greater generation, and from then on the store
 *           refuses what an earlier one still sends, also after a power cut: a claim is flushed
 *           before it is granted
 *   flush   tells up to which version every member is durable: nobody can lack that any more
 */
import { isAfter, nobody, type Version, type Writer } from "#lib/model/writer.ts";
import { BlockStatus } from "#lib/volume/block.ts";
import { EntryType, snapshotFormat } from "./layout.ts";
import type { Lineage } from "./lineages.ts";
import type { Store } from "./store.ts";

/**
 * Takes the volume for `wanted`; generation 0 asks for the next one. Who has it already keeps it.
 * `done` comes from a later turn, with what is granted, or why it is not.
 */
export function claimVolume(
  store: Store,
  lineage: Lineage,
  wanted: Writer,
  done: (granted: Writer | BlockStatus) => void,
): void {
  const granted = grant(lineage.writer, wanted);
  if (granted !== null && granted !== lineage.writer) takeVolume(store, lineage, granted);
  store.afterFlush((ok) => done(ok ? (granted ?? BlockStatus.fenced) : BlockStatus.storeFailed));
}

/** Null: `wanted` is too old. */
export function grant(present: Writer, wanted: Writer): Writer | null {
  if (wanted.groupEpoch < present.groupEpoch) return null;
  const same = wanted.id[0] === present.id[0] && wanted.id[1] === present.id[1];
  const next = same ? present.generation : present.generation + 1;
  const generation = Math.max(wanted.generation, wanted.generation === 0 ? next : 0);
  if (generation < next || generation === 0) return null;
  if (generation === present.generation && wanted.groupEpoch === present.groupEpoch) return present;
  return { ...wanted, generation };
}

function takeVolume(store: Store, lineage: Lineage, writer: Writer): void {
  // An older program would not know the entry: it has one writer a volume by its own means.
  if (store.superblock.format < snapshotFormat) lineage.writer = writer;
  else if (store.prepare(1, 0)) {
    addClaim(store, lineage.number, writer);
    store.commit();
  }
}

/** To the record being built: of a volume that takes another's place, so that its writers stay out. */
export function inheritClaim(store: Store, from: Lineage, to: number): void {
  if (from.writer !== nobody) addClaim(store, to, from.writer);
}

function addClaim(store: Store, lineage: number, { generation, groupEpoch, id }: Writer): void {
  store.log.add(
    ...([EntryType.claim, 0, 0, lineage, 0] as const),
    ...([generation, groupEpoch, 0, ...id] as const),
  );
}

/**
 * Every member has everything up to `version` durable, says the volume's writer of this generation.
 * Not taken of an older one, nor past what was done here. Lost with the next power cut, at worst.
 */
export function noteGroupFlush(
  store: Store,
  lineage: Lineage,
  writer: number,
  version: Version,
): void {
  if (writer !== lineage.writer.generation || isAfter(version, lineage.version)) return;
  if (!isAfter(version, lineage.flushed) || !store.prepare(1, 0)) return;
  const { generation, sequence } = version;
  store.log.add(
    ...([EntryType.groupFlush, 0, 0, lineage.number, 0] as const),
    ...([0, generation, 0, sequence % 2 ** 32, Math.floor(sequence / 2 ** 32)] as const),
  );
  store.commit();
}
