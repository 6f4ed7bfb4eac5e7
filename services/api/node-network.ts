/** keelson-network as api sees it: a caller of its socket, and what it said last. */
import { existsSync } from "node:fs";
import { bad, type Checked, good, unobserved } from "#lib/aime/checked.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { FirewallView, NetworkView } from "#services/network/schema.ts";
import type { Clock } from "./clock.ts";
import { ServiceCaller } from "./service-caller.ts";

const timeoutMs = 30_000;
const maxAgeMs = 20_000;
const source = "network";

export class NodeNetworkPeer {
  readonly #run: string;
  readonly #clock: Clock;
  readonly #caller: ServiceCaller;
  #observed: Checked<NetworkView> = unobserved(source);

  constructor(run: string, clock: Clock) {
    this.#run = run;
    this.#clock = clock;
    this.#caller = new ServiceCaller(run, timeoutMs);
  }

  /** False in development: the machine's networks are somebody else's. */
  get wanted(): boolean {
    return existsSync(this.#run);
  }

  /** What it said last; `observe` asks again. */
  get observed(): Checked<NetworkView> | null {
    return this.wanted ? this.#observed : null;
  }

  async observe(): Promise<void> {
    if (!this.wanted) return;
    const origin = () => ({ source, atMs: this.#clock.bootMs(), maxAgeMs });
    try {
      this.#observed = good(await this.view(), origin());
    } catch (error) {
      this.#observed = bad(explainError(error), origin());
    }
  }

  view(): Promise<NetworkView> {
    return this.#call("GET", "network");
  }

  firewall(): Promise<FirewallView> {
    return this.#call("GET", "firewall");
  }

  apply(config: unknown, confirmWithinSeconds: number): Promise<{ id: string }> {
    return this.#call("POST", "apply", { config, confirmWithinSeconds });
  }

  confirm(id: string): Promise<void> {
    return this.#call("POST", "confirm", { id });
  }

  revert(id: string): Promise<void> {
    return this.#call("POST", "revert", { id });
  }

  async #call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    if (!this.wanted) {
      throw new KeelsonError("UNSUPPORTED", "This node does not set up its own networks.", {
        operation: "ask network",
        remedy: "An installed node does; in development the machine's own are left alone.",
      });
    }
    return await this.#caller.json(method, path, body);
  }
}
