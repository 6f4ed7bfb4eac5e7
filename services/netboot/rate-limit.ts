/** Token buckets by key, bounded: the key that was quiet the longest is forgotten first. */
export class RateLimit {
  #buckets = new Map<string, { tokens: number; atMs: number }>();
  #now: () => number;
  readonly burst: number;
  readonly perSecond: number;
  readonly maxKeys: number;

  /** `now` in milliseconds, monotonic. */
  constructor(now: () => number, burst: number, perSecond: number, maxKeys = 4096) {
    this.#now = now;
    this.burst = burst;
    this.perSecond = perSecond;
    this.maxKeys = maxKeys;
  }

  /** Takes one; false when the bucket is empty. */
  take(key: string): boolean {
    const now = this.#now();
    const before = this.#buckets.get(key);
    const refilled =
      before === undefined
        ? this.burst
        : Math.min(this.burst, before.tokens + ((now - before.atMs) / 1000) * this.perSecond);
    const granted = refilled >= 1;
    this.#buckets.delete(key);
    this.#buckets.set(key, { tokens: granted ? refilled - 1 : refilled, atMs: now });
    if (this.#buckets.size > this.maxKeys) {
      this.#buckets.delete(this.#buckets.keys().next().value!);
    }
    return granted;
  }
}
