/**
 * A checked value: what was observed, where, when, and how far it may be trusted (OPC UA's
 * DataValue). Reading one that is bad or too old gives no number but the reason, so that stale data
 * can't look live.
 *
 * Times are milliseconds of a clock that never jumps (CLOCK_BOOTTIME), passed in.
 */
export type Quality = "good" | "uncertain" | "bad";

interface Origin {
  /** Who observed it: "chunk-store". */
  readonly source: string;
  readonly atMs: number;
  /** From this age on it counts as bad. */
  readonly maxAgeMs: number;
}

export type Checked<Value> = Origin &
  (
    | { readonly quality: "good"; readonly value: Value }
    | { readonly quality: "uncertain"; readonly value: Value; readonly reason: string }
    | { readonly quality: "bad"; readonly reason: string }
  );

export type Reading<Value> =
  | { readonly known: true; readonly value: Value; readonly caveat: string | null }
  | { readonly known: false; readonly reason: string };

export function good<Value>(value: Value, origin: Origin): Checked<Value> {
  return { ...origin, quality: "good", value };
}

export function uncertain<Value>(value: Value, reason: string, origin: Origin): Checked<Value> {
  return { ...origin, quality: "uncertain", value, reason };
}

export function bad(reason: string, origin: Origin): Checked<never> {
  return { ...origin, quality: "bad", reason };
}

/** Nothing was ever observed. */
export function unobserved(source: string): Checked<never> {
  return bad(`${source} has not been asked yet.`, { source, atMs: 0, maxAgeMs: 0 });
}

export function read<Value>(checked: Checked<Value>, nowMs: number): Reading<Value> {
  if (checked.quality === "bad") return { known: false, reason: checked.reason };
  const ageMs = nowMs - checked.atMs;
  if (ageMs >= checked.maxAgeMs) {
    const seconds = Math.round(ageMs / 1000);
    return { known: false, reason: `${checked.source} was last heard ${seconds} s ago.` };
  }
  const caveat = checked.quality === "uncertain" ? checked.reason : null;
  return { known: true, value: checked.value, caveat };
}

/** A value computed from another one: as good as that one, never better. */
export function derive<Value, Result>(
  checked: Checked<Value>,
  compute: (value: Value) => Result,
): Checked<Result> {
  if (checked.quality === "bad") return checked;
  return { ...checked, value: compute(checked.value) };
}
