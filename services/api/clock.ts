import { uptime } from "node:os";

/** Two clocks: one for ages, that never jumps and counts suspended time; one for people. */
export interface Clock {
  /** CLOCK_BOOTTIME in milliseconds (libuv reads it for `uptime`, to 10 ms). */
  bootMs(): number;
  /** Wall clock, ISO 8601 UTC. May be wrong on a machine with a dead battery. */
  now(): string;
}

export const systemClock: Clock = {
  bootMs: () => Math.round(uptime() * 1000),
  now: () => new Date().toISOString(),
};
