/**
 * How the comparison with qcow2 takes snapshots, of either side, while its volume is open and
 * written. The store's engine has none yet: when it has, `ChunkStore.volume` gives its volume one of
 * these, and the two rows that wait for it are measured.
 */
export interface SnapshotSource {
  /** Resolves when every write acknowledged before the call is in the snapshot. */
  takeSnapshot(name: string): Promise<void>;
  /** Resolves when it is gone for its users; its space may come back later. */
  deleteSnapshot(name: string): Promise<void>;
}
