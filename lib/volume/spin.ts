/**
 * When to spin on a ring before sleeping. A spin saves a wake-up (about 6 us of latency, 12 us of
 * processor time on both sides together) and costs what it lasts. It pays only where requests come
 * one or two at a time and soon after each other; with more under way a sleep costs nothing, since
 * work piles up meanwhile, and makes the next batch larger.
 */
const spinUs = 50;
const fewRequests = 2;
/** Batches without a deep one before the queue counts as shallow. */
const calmBatches = 64;
/** Waits longer than this on average: sleeping is cheaper. */
const shortWaitUs = 25;
const weight = 1 / 8;

export class SpinPolicy {
  private calm = 0;
  private waitUs = shortWaitUs;

  /** A wait of `waitedUs` brought `count` requests, or `count` are outstanding. */
  observe(count: number, waitedUs: number): void {
    if (count > fewRequests) this.calm = 0;
    else if (this.calm < calmBatches) this.calm++;
    // One long pause must not count for more than one wait that was too long.
    this.waitUs += (Math.min(waitedUs, 4 * spinUs) - this.waitUs) * weight;
  }

  /** Microseconds to spin in the next wait. */
  get budgetUs(): number {
    return this.calm === calmBatches && this.waitUs <= shortWaitUs ? spinUs : 0;
  }
}
