import { type GroupCounts, simulateGroup } from "./group-run.ts";
import { type SimCounts, type SimOptions, simulate } from "./run.ts";

/** Of so many seeds one is the life of a group of two stores; odd, so that two lanes share them. */
const groupOnceIn = 15;
/** Its steps have fewer requests each: so many steps more make as many. */
const groupSteps = 2.6;

export type Counts = Partial<SimCounts> & Partial<GroupCounts>;

/** Runs a seed. SimFailure if it breaks a promise. */
export function play(options: SimOptions): Counts {
  if (options.seed % groupOnceIn !== 0) return simulate(options);
  const operations = Math.ceil(options.operations * groupSteps);
  return simulateGroup({ ...options, operations });
}
