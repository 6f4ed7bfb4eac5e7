/** What a comparison of `npm run peers -- store` is, what it gives, and how its rounds are taken. */
import { median } from "../measure.ts";

export interface ComparisonOptions {
  readonly rounds: number;
  /** Of each timed measurement. */
  readonly seconds: number;
  /** Size of the volume, and of the plain file beside it, where the comparison sets none itself. */
  readonly regionBytes: number;
  /** On the disk to test, empty, the comparison's own: whoever started it removes it. */
  readonly directory: string;
  readonly progress: (line: string) => void;
}

export interface Comparison {
  readonly name: string;
  /** Most that its files take of the disk, if it is not their apparent size. */
  needBytes(regionBytes: number): number;
  /** How it is measured, a line each: printed above its figures. */
  readonly method: readonly string[];
  run(options: ComparisonOptions): Promise<readonly (Figure | NotMeasured)[]>;
}

/** Over the rounds. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** `atMost` and `atLeast` are for the median, `exactly` is for every round. */
export type Bar =
  | { readonly atMost: number }
  | { readonly atLeast: number }
  | { readonly exactly: number };

export interface Figure {
  readonly name: string;
  /** Of each round: the store's value to the peer's, or the store's own where there is no peer. */
  readonly value: Spread;
  /** Of `value`; `ratio` where it is one. */
  readonly unit: string;
  /** What the ratio was made of. */
  readonly sides?: { readonly store: Spread; readonly peer: Spread; readonly unit: string };
  readonly bar: Bar | null;
}

export interface NotMeasured {
  readonly name: string;
  readonly notMeasured: string;
}

export function spread(values: readonly number[]): Spread {
  return { min: Math.min(...values), median: median(values), max: Math.max(...values) };
}

/** The store's own values, a round each. */
export function alone(
  name: string,
  unit: string,
  values: readonly number[],
  bar: Bar | null = null,
): Figure {
  return { name, value: spread(values), unit, bar };
}

/** The store's values to the peer's, round by round: both saw the same state of the machine. */
export function versus(
  name: string,
  unit: string,
  store: readonly number[],
  peer: readonly number[],
  bar: Bar | null = null,
): Figure {
  return {
    name,
    value: spread(store.map((value, round) => value / peer[round])),
    unit: "ratio",
    sides: { store: spread(store), peer: spread(peer), unit },
    bar,
  };
}

/** Null where there is no bar to meet. */
export function meets({ value, bar }: Pick<Figure, "value" | "bar">): boolean | null {
  if (bar === null) return null;
  if ("atMost" in bar) return value.median <= bar.atMost;
  if ("atLeast" in bar) return value.median >= bar.atLeast;
  return value.min === bar.exactly && value.max === bar.exactly;
}

/**
 * Measures each contender once a round, after one round that does not count (compiled code, warm
 * caches). Who goes first changes, so that nobody always finds the other's dirty pages.
 */
export async function inTurn<Name extends string>(
  { rounds, progress }: Pick<ComparisonOptions, "rounds" | "progress">,
  unit: string,
  contenders: Readonly<Record<Name, () => number | Promise<number>>>,
): Promise<Record<Name, number[]>> {
  const names = Object.keys(contenders) as Name[];
  const values = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<
    Name,
    number[]
  >;
  for (const name of names) await contenders[name]();
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      values[name].push(await contenders[name]());
    }
    const each = names.map((name) => `${name} ${values[name][round].toPrecision(4)}`);
    progress(`round ${round + 1}: ${each.join(", ")} ${unit}`);
  }
  return values;
}

/** Runs `batch`, which does `count` operations, for some seconds. */
export function timed(
  seconds: number,
  count: number,
  batch: () => void,
): { readonly perSecond: number; readonly cpuUs: number } {
  const cpu = process.cpuUsage();
  const started = performance.now();
  const end = started + seconds * 1000;
  let done = 0;
  let now = started;
  for (; now < end; now = performance.now()) {
    batch();
    done += count;
  }
  // All threads of this process, the addon's and libuv's too.
  const { user, system } = process.cpuUsage(cpu);
  return { perSecond: (done / (now - started)) * 1000, cpuUs: (user + system) / done };
}
