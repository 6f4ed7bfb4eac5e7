/** A failing run made short: the steps without which it fails no more. */
import { play } from "./play.ts";
import { SimFailure, type SimOptions } from "./run.ts";

export interface Shrunk {
  /** In their order; played again by `SimOptions.steps`. */
  readonly steps: readonly number[];
  /** What fails then: not always what failed at first. */
  readonly what: string;
  /** Runs that it took. */
  readonly tries: number;
}

const mostTries = 600;

/**
 * Leaves out halves, then quarters, down to single steps, for as long as the run still fails
 * (Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002, without its
 * complements). Undefined if the whole run does not fail.
 */
export function shrink(options: SimOptions): Shrunk | undefined {
  let tries = 0;
  const failureOf = (steps: readonly number[]): SimFailure | undefined => {
    tries++;
    try {
      play({ ...options, steps });
      return undefined;
    } catch (error) {
      if (error instanceof SimFailure) return error;
      throw error;
    }
  };
  const all = options.steps ?? Array.from({ length: options.operations }, (_, i) => i + 1);
  const first = failureOf(all);
  if (first === undefined) return undefined;
  let failure = first;
  let steps = upTo(all, failure);
  for (let size = Math.ceil(steps.length / 2); size >= 1; size = Math.floor(size / 2)) {
    let shorter = true;
    // Single steps again and again: one may be needless only after another is gone.
    while (shorter) {
      shorter = false;
      for (let at = 0; at < steps.length && tries < mostTries; ) {
        const rest = [...steps.slice(0, at), ...steps.slice(at + size)];
        const found = rest.length === 0 ? undefined : failureOf(rest);
        if (found === undefined) at += size;
        else {
          failure = found;
          steps = upTo(rest, found);
          shorter = size === 1;
        }
      }
      if (tries >= mostTries) return { steps, what: failure.message, tries };
    }
  }
  return { steps, what: failure.message, tries };
}

/** What comes after the step that failed had no part in it. */
function upTo(steps: readonly number[], { step }: SimFailure): readonly number[] {
  return steps.filter((each) => each <= step);
}
