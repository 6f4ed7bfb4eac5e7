/**
 * What was asked of a browser and is not answered yet: a log-in that went to the identity provider,
 * a challenge for a security key. Each is known by a random id that only that browser has (in a
 * cookie), is taken once, and ends by itself. In memory: after a restart one starts again.
 *
 * Anybody may begin one, so their number is bounded, and a flood from one network drops that
 * network's own, never another's.
 */
import { randomBytes } from "node:crypto";
import type { Clock } from "./clock.ts";

interface Entry<Value> {
  readonly value: Value;
  readonly network: string;
  /** Boot-time clock. */
  readonly endsMs: number;
}

export interface CeremonyLimits {
  readonly lifeMs: number;
  readonly mostPerNetwork: number;
  readonly most: number;
}

const usualLimits: CeremonyLimits = { lifeMs: 600_000, mostPerNetwork: 64, most: 4096 };

export class Ceremonies<Value> {
  readonly #clock: Clock;
  readonly #limits: CeremonyLimits;
  /** Oldest first. */
  readonly #entries = new Map<string, Entry<Value>>();
  readonly #perNetwork = new Map<string, number>();

  constructor(clock: Clock, limits: Partial<CeremonyLimits> = {}) {
    this.#clock = clock;
    this.#limits = { ...usualLimits, ...limits };
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Seconds until one ends: for the cookie's own end. */
  get lifeSeconds(): number {
    return Math.ceil(this.#limits.lifeMs / 1000);
  }

  /** Returns the id, 256 random bits. `network` is whom a flood is counted against. */
  begin(network: string, value: Value): string {
    this.#dropEnded();
    const { mostPerNetwork, most, lifeMs } = this.#limits;
    if ((this.#perNetwork.get(network) ?? 0) >= mostPerNetwork) this.#dropOldestOf(network);
    else if (this.#entries.size >= most) this.#dropOldestOf(this.#busiest());
    const id = randomBytes(32).toString("base64url");
    this.#entries.set(id, { value, network, endsMs: this.#clock.bootMs() + lifeMs });
    this.#perNetwork.set(network, (this.#perNetwork.get(network) ?? 0) + 1);
    return id;
  }

  /** Gives it once; undefined if there is none, it was taken before, or it has ended. */
  take(id: string | undefined): Value | undefined {
    const entry = id === undefined ? undefined : this.#entries.get(id);
    if (id === undefined || entry === undefined) return undefined;
    this.#drop(id, entry);
    return entry.endsMs > this.#clock.bootMs() ? entry.value : undefined;
  }

  #dropEnded(): void {
    const nowMs = this.#clock.bootMs();
    for (const [id, entry] of this.#entries) {
      if (entry.endsMs > nowMs) return;
      this.#drop(id, entry);
    }
  }

  #dropOldestOf(network: string): void {
    for (const [id, entry] of this.#entries) {
      if (entry.network !== network) continue;
      this.#drop(id, entry);
      return;
    }
  }

  #busiest(): string {
    let [busiest, most] = ["", -1];
    for (const [network, count] of this.#perNetwork) {
      if (count > most) [busiest, most] = [network, count];
    }
    return busiest;
  }

  #drop(id: string, { network }: Entry<Value>): void {
    this.#entries.delete(id);
    const left = (this.#perNetwork.get(network) ?? 1) - 1;
    if (left === 0) this.#perNetwork.delete(network);
    else this.#perNetwork.set(network, left);
  }
}
