/** Slows guessing of CHAP secrets: per remote host, `burst` failures, then one each `refillMs`. */
export class LoginLimiter {
  private readonly failures = new Map<string, { count: number; atMs: number }>();
  private readonly burst: number;
  private readonly refillMs: number;
  private readonly maxHosts: number;

  constructor(burst = 10, refillMs = 5_000, maxHosts = 4096) {
    this.burst = burst;
    this.refillMs = refillMs;
    this.maxHosts = maxHosts;
  }

  private current(host: string, nowMs: number): number {
    const entry = this.failures.get(host);
    if (entry === undefined) return 0;
    return Math.max(0, entry.count - (nowMs - entry.atMs) / this.refillMs);
  }

  limited(host: string, nowMs: number): boolean {
    return this.current(host, nowMs) > this.burst - 1;
  }

  failed(host: string, nowMs: number): void {
    const count = this.current(host, nowMs) + 1;
    this.failures.delete(host);
    this.failures.set(host, { count, atMs: nowMs });
    if (this.failures.size > this.maxHosts) {
      // Oldest first: a Map keeps the order of insertion.
      const oldest = this.failures.keys().next().value;
      if (oldest !== undefined) this.failures.delete(oldest);
    }
  }
}
