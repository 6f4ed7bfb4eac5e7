import { type GroupCounts, simulateGroup } from "./group-run.ts";
import { type SimCounts, type SimOptions, simulate } from "./run.ts";

/** Of so many seeds one is the life of a group of two stores, the others are of one store alone. */
const groupOnceIn = 4;
/** A group's steps cost more. */
const groupShare = 0.5;

export type Counts = Partial<SimCounts> & Partial<GroupCounts>;

/** Runs a seed. SimFailure if it breaks a promise. */
export function play(options: SimOptions): Counts {
  if (options.seed % groupOnceIn !== 0) return simulate(options);
  const operations = Math.ceil(options.operations * groupShare);
  return simulateGroup({ ...options, operations });
}
