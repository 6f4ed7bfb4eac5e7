/** Checks of a lab test: each throws with what was wanted and what was there. */
export function expectEqual(actual: unknown, wanted: unknown, what = "the value"): void {
  const [have, want] = [JSON.stringify(actual), JSON.stringify(wanted)];
  if (have !== want) throw new Error(`${what}: wanted ${want}, got ${have}`);
}

export function expectMatch(text: string, pattern: RegExp, what = "the output"): RegExpExecArray {
  const match = pattern.exec(text);
  if (match === null) throw new Error(`${what}: no ${pattern} in:\n${text.slice(-3000)}`);
  return match;
}

export function expectTrue(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

/** Asks again at most each `everyMs` until `holds`: for what has no event to wait for. */
export async function eventually<Value>(
  read: () => Promise<Value>,
  holds: (value: Value) => boolean,
  what: string,
  timeoutMs = 10_000,
  everyMs = 250,
): Promise<Value> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await read();
    if (holds(value)) return value;
    if (performance.now() > end) {
      throw new Error(`${what}: still ${JSON.stringify(value)} after ${timeoutMs} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
