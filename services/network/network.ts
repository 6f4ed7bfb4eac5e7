/**
 * The node's networks and the one change that may wait for its confirmation.
 *
 *              apply                        confirm
 *   settled ------------> waiting (until) ----------> settled, the new one boots
 *      ^                     | time is up, revert, failed to apply, and any start of this service:
 *      +---------------------+ after kill -9, a crash or a reboot the confirmed one is what counts
 *
 * A change is on disk before the machine is touched, and no longer waits only once the confirmed
 * configuration is on disk: whatever is lost in between, a start ends with the old one.
 */
import { randomUUID } from "node:crypto";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { checkAgainstLan, type Problem } from "#lib/network/check.ts";
import { networkDifferences } from "#lib/network/differences.ts";
import { openPorts, renderFirewall } from "#lib/network/firewall.ts";
import { type LinkState, portsOf } from "#lib/network/links.ts";
import { renderNetworkd } from "#lib/network/networkd.ts";
import type { PortDeclaration } from "#lib/network/ports.ts";
import { type ResolvedNetwork, resolveNetwork } from "#lib/network/resolve.ts";
import { checkNetworkConfig, type NetworkConfig } from "#lib/network/schema.ts";
import type { NetworkHandover, StoredNetwork } from "#lib/network/stored.ts";
import type { Log } from "#lib/service/log.ts";
import type { FirewallView, NetworkView, PastChange } from "./schema.ts";
import type { NetworkSystem } from "./system.ts";

/** Confirmed and pending configuration on disk; each write is whole and synced. */
export interface NetworkStore {
  confirmed(): StoredNetwork | undefined;
  pending(): StoredNetwork | undefined;
  writeConfirmed(stored: StoredNetwork): void;
  writePending(stored: StoredNetwork): void;
  removePending(): void;
}

export interface NetworkOptions {
  readonly handover: NetworkHandover;
  readonly store: NetworkStore;
  readonly system: NetworkSystem;
  readonly declarations: readonly PortDeclaration[];
  readonly log: Log;
  /** Kinds of link that count as ports; `port` is hardware. */
  readonly portKinds?: readonly string[];
  /** How long the answer to `apply` has to leave before the network changes under it. */
  readonly graceMs?: number;
  /** Between two attempts at the confirmed networks. */
  readonly retryMs?: number;
  readonly now?: () => Date;
}

interface Waiting {
  readonly stored: StoredNetwork;
  readonly seconds: number;
  untilMs: number;
  timer: NodeJS.Timeout | undefined;
  /** The machine has it: before, there is nothing that anybody could have seen to work. */
  applied: boolean;
}

const graceMs = 300;
const retryMs = 5_000;

export class NodeNetwork {
  readonly #options: NetworkOptions;
  #config: NetworkConfig;
  /** What the services' environment was made from. */
  readonly #booted: NetworkConfig;
  #waiting: Waiting | undefined;
  #again: NodeJS.Timeout | undefined;
  #lastChange: PastChange | null = null;
  #firewall: { active: boolean; failure: string | null; rules: string };
  /** Changes of the machine run one after another. */
  #work: Promise<unknown> = Promise.resolve();

  private constructor(options: NetworkOptions, config: NetworkConfig) {
    this.#options = options;
    this.#config = config;
    this.#booted = config;
    this.#firewall = { active: false, failure: "It is not loaded yet.", rules: "" };
  }

  /** Brings the machine to the confirmed configuration, then resolves. */
  static async start(options: NetworkOptions): Promise<NodeNetwork> {
    const { store, handover, log } = options;
    const confirmed = store.confirmed();
    const network = new NodeNetwork(options, confirmed?.network ?? handover.network);
    const pending = store.pending();
    if (pending !== undefined) {
      if (pending.id === confirmed?.id) {
        network.#end(pending.id, "confirmed", "It was confirmed just before a restart.");
      } else {
        network.#end(
          pending.id,
          "reverted",
          "The node or its network service restarted before it was confirmed.",
        );
        log.warn("an unconfirmed change of the network is dropped", { change: pending.id });
      }
      store.removePending();
    }
    // The socket opens in any case, so that somebody can see what is wrong and mend it.
    await network.#settle();
    return network;
  }

  /** Throws INVALID_ARGUMENT with a line per fault, CONFLICT while another change waits. */
  async apply(value: unknown, confirmWithinSeconds: number): Promise<{ readonly id: string }> {
    if (this.#waiting !== undefined) {
      throw new KeelsonError("CONFLICT", "Another change of the network waits for confirmation.", {
        operation: "change network",
        object: this.#waiting.stored.id,
        remedy: "Confirm or revert it first.",
      });
    }
    const checked = checkNetworkConfig(value);
    if (!checked.ok) throw refusal(checked.problems);
    const { config } = checked;
    const links = await this.#options.system.links();
    const resolved = this.#resolve(config, links);
    const problems = [...resolved.problems, ...this.#overlaps(config, resolved, links)];
    if (problems.length > 0) throw refusal(problems);
    if (this.#waiting !== undefined) return this.apply(value, confirmWithinSeconds);

    const id = randomUUID();
    const stored: StoredNetwork = { version: 1, id, at: this.#now(), network: config };
    this.#options.store.writePending(stored);
    const waiting: Waiting = {
      ...{ stored, seconds: confirmWithinSeconds, applied: false },
      ...{ untilMs: 0, timer: undefined },
    };
    this.#waiting = waiting;
    this.#startTimer(waiting);
    this.#options.log.info("a change of the network is tried", {
      change: id,
      seconds: confirmWithinSeconds,
    });
    setTimeout(() => void this.#try(waiting), this.#options.graceMs ?? graceMs);
    return { id };
  }

  async #try(waiting: Waiting): Promise<void> {
    if (this.#waiting !== waiting) return;
    const { id, network } = waiting.stored;
    try {
      await this.#bring(network);
    } catch (error) {
      await this.#revert(`It could not be applied: ${explainError(error)}`, id);
      return;
    }
    waiting.applied = true;
    // The time to look at it begins now.
    if (this.#waiting === waiting) this.#startTimer(waiting);
  }

  #startTimer(waiting: Waiting): void {
    const { id } = waiting.stored;
    clearTimeout(waiting.timer);
    waiting.untilMs = performance.now() + waiting.seconds * 1000;
    waiting.timer = setTimeout(() => {
      void this.#revert(`Nobody confirmed it within ${waiting.seconds} seconds.`, id);
    }, waiting.seconds * 1000);
  }

  /** Makes the waiting change the one that boots. NOT_FOUND if it no longer waits. */
  confirm(id: string): void {
    const { stored, timer, applied } = this.#expect(id);
    const { store, log } = this.#options;
    if (!applied) {
      throw new KeelsonError("CONFLICT", "This change is still being applied.", {
        operation: "confirm network",
        object: id,
        remedy: "See that it works, then confirm it.",
      });
    }
    store.writeConfirmed(stored);
    // From here on it counts, whatever happens before the next line.
    clearTimeout(timer);
    this.#waiting = undefined;
    this.#config = stored.network;
    store.removePending();
    this.#end(id, "confirmed", "It was confirmed.");
    log.info("the change of the network is confirmed", { change: id });
  }

  /** Back to the confirmed configuration; resolves when the machine has it. */
  async revert(id: string): Promise<void> {
    this.#expect(id);
    await this.#revert("It was taken back.", id);
  }

  async view(): Promise<NetworkView> {
    const links = await this.#options.system.links();
    const running = this.#waiting?.stored.network ?? this.#config;
    const resolved = this.#resolve(running, links);
    const waiting = this.#waiting;
    return {
      config: this.#config,
      pending:
        waiting === undefined
          ? null
          : {
              id: waiting.stored.id,
              config: waiting.stored.network,
              applied: waiting.applied,
              secondsLeft: Math.max(0, Math.ceil((waiting.untilMs - performance.now()) / 1000)),
            },
      lastChange: this.#lastChange,
      roles: resolved.roles,
      links,
      problems: [...resolved.problems, ...this.#overlaps(running, resolved, links)],
      differences: networkDifferences(running, resolved, links),
      firewall: { active: this.#firewall.active, failure: this.#firewall.failure },
      restartNeeded: restartNeeded(this.#booted, this.#config),
    };
  }

  async firewall(): Promise<FirewallView> {
    const links = await this.#options.system.links();
    const config = this.#waiting?.stored.network ?? this.#config;
    const { declarations } = this.#options;
    return {
      ...this.#firewall,
      open: openPorts({
        declarations,
        roles: this.#resolve(config, links).roles,
        lanByDhcp: config.lan.address === "dhcp",
      }),
    };
  }

  /** Ends without touching the network: the next start drops what waits. */
  async stop(): Promise<void> {
    clearTimeout(this.#waiting?.timer);
    clearTimeout(this.#again);
    await this.#work;
  }

  #expect(id: string): Waiting {
    const waiting = this.#waiting;
    if (waiting?.stored.id === id) return waiting;
    const last = this.#lastChange?.id === id ? this.#lastChange : undefined;
    throw new KeelsonError(
      "NOT_FOUND",
      last === undefined
        ? "No such change of the network waits for confirmation."
        : `This change is ${last.outcome} already. ${last.reason}`,
      { operation: "change network", object: id, remedy: "See keelson network show." },
    );
  }

  /** `id` undefined: whichever waits. */
  async #revert(reason: string, id = this.#waiting?.stored.id): Promise<void> {
    const waiting = this.#waiting;
    if (waiting === undefined || waiting.stored.id !== id) return;
    const { store, log } = this.#options;
    clearTimeout(waiting.timer);
    this.#waiting = undefined;
    store.removePending();
    this.#end(waiting.stored.id, "reverted", reason);
    log.warn(`the change of the network is reverted: ${reason}`, { change: waiting.stored.id });
    await this.#settle();
  }

  /** The machine with the confirmed networks; where that fails, it is tried until it doesn't. */
  async #settle(): Promise<void> {
    try {
      await this.#bring(this.#config);
    } catch (error) {
      this.#options.log.error(`the network could not be set up: ${explainError(error)}`);
      clearTimeout(this.#again);
      this.#again = setTimeout(() => {
        if (this.#waiting === undefined) void this.#settle();
      }, this.#options.retryMs ?? retryMs);
    }
  }

  /** Firewall first: an interface is never up without it. */
  #bring(config: NetworkConfig): Promise<void> {
    const next = this.#work.then(async () => {
      const { system, handover, log, declarations } = this.#options;
      const links = await system.links();
      const resolved = this.#resolve(config, links);
      for (const { message } of resolved.problems) log.warn(message);
      const lanByDhcp = config.lan.address === "dhcp";
      const rules = renderFirewall({ declarations, roles: resolved.roles, lanByDhcp });
      try {
        await system.loadFirewall(rules);
        this.#firewall = { active: true, failure: null, rules };
      } catch (error) {
        // Without a network nobody could mend it; the condition is critical.
        log.error(`the firewall is not loaded: ${explainError(error)}`);
        this.#firewall = { ...this.#firewall, active: false, failure: explainError(error) };
      }
      const { hostName, ntp } = handover;
      const files = renderNetworkd({ config, resolved, hostName, ntp });
      const used = resolved.links.flatMap(({ name, bond }) =>
        bond === undefined ? [name] : bond.ports.map((port) => port.name),
      );
      const unused = this.#ports(links)
        .map(({ name }) => name)
        .filter((name) => !used.includes(name));
      await system.configure(files, unused);
    });
    this.#work = next.catch(() => {});
    return next;
  }

  #ports(links: readonly LinkState[]) {
    return portsOf(links, this.#options.portKinds);
  }

  #resolve(config: NetworkConfig, links: readonly LinkState[]): ResolvedNetwork {
    return resolveNetwork(config, this.#ports(links));
  }

  /** Of the backplane with the LAN's addresses as they are now. */
  #overlaps(
    config: NetworkConfig,
    resolved: ResolvedNetwork,
    links: readonly LinkState[],
  ): Problem[] {
    if (config.lan.address !== "dhcp") return [];
    // Before a change is made, the LAN may still be on another interface.
    const names = [resolved.roles.lan, this.#resolve(this.#config, links).roles.lan];
    const own = config.backplane?.address;
    const addresses = links
      .filter(({ name }) => names.includes(name))
      .flatMap((link) => link.addresses.filter(({ dynamic }) => dynamic))
      .map(({ address }) => address)
      .filter((address) => address !== own);
    return checkAgainstLan(config, [...new Set(addresses)]);
  }

  #end(id: string, outcome: PastChange["outcome"], reason: string): void {
    this.#lastChange = { id, outcome, at: this.#now(), reason };
  }

  #now(): string {
    return (this.#options.now?.() ?? new Date()).toISOString();
  }
}

/** One error with a line per fault, as the installer says them. */
function refusal(problems: readonly Problem[]): KeelsonError {
  const lines = problems.map(({ path, message }) =>
    path === "" ? message : `${path}: ${message}`,
  );
  return new KeelsonError("INVALID_ARGUMENT", `These networks can't be used: ${lines.join("; ")}`, {
    operation: "change network",
    remedy: "Nothing was changed.",
    issues: problems.map(({ path, message }) => ({ field: path, message })),
  });
}

/** Netboot and the portal's address are told to their services when they start. */
function restartNeeded(booted: NetworkConfig, now: NetworkConfig): string | null {
  const facts = ({ lan, netboot }: NetworkConfig) =>
    JSON.stringify([netboot ?? null, netboot === undefined ? null : [lan.address, lan.interface]]);
  if (facts(booted) === facts(now)) return null;
  return "Network boot uses its former settings until the node restarts.";
}
