/**
 * What keeps the members of a group alike: a volume's changes are numbered by its writer, and each
 * store does them in that order, so that of two members the one with the later version has all
 * that the other one has.
 *
 *   version   (generation of the writer, its sequence); 0, 0: of no group, not numbered
 *   writer    one at a time: each has a greater generation than the one before
 */
export interface Version {
  /** Below 2^32; 0 is nobody's. */
  readonly generation: number;
  /** Below 2^53. */
  readonly sequence: number;
}

export const noVersion: Version = { generation: 0, sequence: 0 };

export function isAfter(a: Version, b: Version): boolean {
  return a.generation > b.generation || (a.generation === b.generation && a.sequence > b.sequence);
}

/** What a write, discard or write of zeroes was about. */
export interface Operation extends Version {
  /** Its sectors read zero. */
  readonly discards: boolean;
  /** A power cut left only a part of it: the store's version is before it. */
  readonly partly: boolean;
  /** First 512-byte sector, and how many. */
  readonly sector: number;
  readonly sectors: number;
}

/** Who may write a volume; a store refuses whoever is older. */
export interface Writer {
  /** 0: nobody yet; of a claim: the next one. */
  readonly generation: number;
  /** Of the group's list of members. */
  readonly groupEpoch: number;
  /** Random, of a gateway's life: 64 bits as two words. */
  readonly id: readonly [low: number, high: number];
}

export const nobody: Writer = { generation: 0, groupEpoch: 0, id: [0, 0] };
