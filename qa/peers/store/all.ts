/** In the order in which they run: the short ones first. */
import { aged } from "./aged.ts";
import type { Comparison } from "./comparison.ts";
import { memory } from "./memory.ts";
import { metadata } from "./metadata.ts";
import { mount } from "./mount.ts";
import { qcow2 } from "./qcow2.ts";
import { readCpu, readDirect } from "./reads.ts";
import { snapshotCosts } from "./snapshots.ts";
import { flush, sequential } from "./writes.ts";

export const comparisons: readonly Comparison[] = [
  readCpu,
  readDirect,
  sequential,
  flush,
  qcow2,
  snapshotCosts,
  aged,
  mount,
  memory,
  metadata,
];
