/**
 * The DHCP sockets of each interface that policy turns on: opened when the interface has an
 * address, reopened when that changes, closed when policy or address goes.
 */
import type { RemoteInfo } from "node:dgram";
import { networkInterfaces } from "node:os";
import { explainError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import {
  contains,
  formatIpv4,
  type Ipv4,
  limitedBroadcast,
  parseIpv4,
  parseSubnet,
} from "#lib/wire/dhcp/address.ts";
import { decodeMessage, encodeMessage, typeOf } from "#lib/wire/dhcp/message.ts";
import type { Counters } from "./counters.ts";
import type { Arrival, DhcpServer, Reply, Sighting } from "./dhcp-server.ts";
import { type DhcpSocket, openDhcpSocket } from "./dhcp-socket.ts";
import type { InterfacePolicy, NetbootConfig } from "./schema.ts";

export interface ListenerOptions {
  readonly server: DhcpServer;
  readonly counters: Counters;
  readonly log: Log;
  readonly ports: { readonly server: number; readonly proxy: number; readonly client: number };
  /** Only these interfaces may be served; undefined: all that policy names. */
  readonly allowed?: ReadonlySet<string> | undefined;
  readonly sighted: (sighting: Sighting, policy: InterfacePolicy) => void;
}

interface Segment {
  readonly policy: InterfacePolicy;
  readonly address?: Ipv4;
  readonly problem?: string;
  readonly sockets: readonly DhcpSocket[];
}

/** Requests being answered at once: a probe or a disk sync holds each for a while. */
const maxPending = 1024;
const watchMs = 5000;

export class SegmentListeners {
  #options: ListenerOptions;
  #config: NetbootConfig;
  #segments = new Map<string, Segment>();
  #pending = 0;
  #timer: NodeJS.Timeout;
  #busy: Promise<void> = Promise.resolve();

  constructor(options: ListenerOptions, config: NetbootConfig) {
    this.#options = options;
    this.#config = config;
    // Addresses come and go without a word to us; reading them costs microseconds.
    this.#timer = setInterval(() => void this.refresh(), watchMs);
    this.#timer.unref();
  }

  configure(config: NetbootConfig): Promise<void> {
    this.#config = config;
    return this.refresh();
  }

  segment(name: string): { address?: Ipv4; problem?: string } | undefined {
    return this.#segments.get(name);
  }

  /** Opens and closes what policy and addresses ask for; one run at a time. */
  refresh(): Promise<void> {
    this.#busy = this.#busy
      .then(() => this.#refresh())
      .catch((error: unknown) => this.#options.log.error(`DHCP sockets: ${explainError(error)}`));
    return this.#busy;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#busy;
    for (const segment of this.#segments.values()) closeAll(segment);
    this.#segments.clear();
  }

  async #refresh(): Promise<void> {
    const wanted = this.#config.interfaces.filter((policy) => policy.mode !== "off");
    for (const [name, segment] of this.#segments) {
      if (wanted.some((policy) => policy.name === name)) continue;
      closeAll(segment);
      this.#segments.delete(name);
      this.#options.log.info("DHCP is off", { interface: name });
    }
    for (const policy of wanted) {
      const before = this.#segments.get(policy.name);
      const address = addressFor(policy);
      if (before !== undefined && before.address === address && before.sockets.length > 0) {
        this.#segments.set(policy.name, { ...before, policy });
        continue;
      }
      if (before !== undefined) closeAll(before);
      const next = await this.#open(policy, address, wanted.length);
      this.#segments.set(policy.name, next);
      if (next.problem !== undefined && next.problem !== before?.problem) {
        this.#options.log.warn(next.problem, { interface: policy.name });
      }
    }
  }

  async #open(
    policy: InterfacePolicy,
    address: Ipv4 | undefined,
    interfaceCount: number,
  ): Promise<Segment> {
    const { allowed, ports, log } = this.#options;
    const none = { policy, sockets: [] };
    if (allowed !== undefined && !allowed.has(policy.name)) {
      return { ...none, problem: "This service was started without --interface for it." };
    }
    if (address === undefined) {
      const where = policy.mode === "server" ? ` in ${policy.subnet}` : "";
      return { ...none, problem: `${policy.name} has no IPv4 address${where}.` };
    }
    const sockets: DhcpSocket[] = [];
    try {
      for (const port of [ports.server, ports.proxy]) {
        const socket: DhcpSocket = await openDhcpSocket({
          interface: policy.name,
          address: formatIpv4(address),
          port,
          receive: (bytes, from) => this.#receive(policy.name, port, bytes, from, socket),
          failed: (error) => this.#failed(policy.name, error),
        });
        sockets.push(socket);
        if (!socket.boundToInterface && interfaceCount > 1) {
          closeAll({ ...none, sockets });
          const problem = "Without the native addon only one interface can be served.";
          return { ...none, address, problem };
        }
      }
    } catch (error) {
      closeAll({ ...none, sockets });
      return { ...none, address, problem: explainError(error) };
    }
    log.info("DHCP is on", {
      interface: policy.name,
      mode: policy.mode,
      address: formatIpv4(address),
    });
    return { policy, address, sockets };
  }

  /** The interface went away under its socket: looked at again at the next watch. */
  #failed(name: string, error: Error): void {
    const segment = this.#segments.get(name);
    if (segment === undefined) return;
    closeAll(segment);
    this.#segments.set(name, { policy: segment.policy, problem: error.message, sockets: [] });
    this.#options.counters.add("dhcp.socket-error");
  }

  #receive(
    name: string,
    port: number,
    bytes: Uint8Array,
    from: RemoteInfo,
    socket: DhcpSocket,
  ): void {
    const { counters, ports } = this.#options;
    const segment = this.#segments.get(name);
    if (segment?.address === undefined) {
      counters.add("dhcp.dropped.not-configured");
      return;
    }
    counters.add("dhcp.received");
    const decoded = decodeMessage(bytes);
    if ("malformed" in decoded) {
      counters.add(`dhcp.malformed.${decoded.malformed}`);
      return;
    }
    if (decoded.truncatedOptions) counters.add("dhcp.truncated-options");
    if (this.#pending >= maxPending) {
      counters.add("dhcp.dropped.busy");
      return;
    }
    const arrival: Arrival = {
      policy: segment.policy,
      address: segment.address,
      port: port === ports.proxy ? 4011 : 67,
      from: { address: parseIpv4(from.address) ?? (0 as Ipv4), port: from.port },
    };
    this.#pending++;
    this.#answer(decoded.message, arrival, socket)
      .catch((error: unknown) => {
        counters.add("dhcp.error");
        this.#options.log.error(`DHCP: ${explainError(error)}`, { interface: name });
      })
      .finally(() => {
        this.#pending--;
      });
  }

  async #answer(
    message: Parameters<DhcpServer["handle"]>[0],
    arrival: Arrival,
    socket: DhcpSocket,
  ): Promise<void> {
    const { counters, server, sighted } = this.#options;
    const decision = await server.handle(message, arrival);
    if (decision.sighting !== undefined) sighted(decision.sighting, arrival.policy);
    if ("drop" in decision) {
      counters.add(`dhcp.dropped.${decision.drop}`);
      return;
    }
    counters.add(`dhcp.sent.${typeNames[typeOf(decision.reply.message) ?? 0]}`);
    await this.#send(decision.reply, socket);
  }

  #send(reply: Reply, socket: DhcpSocket): Promise<void> {
    const { ports } = this.#options;
    const port = { 67: ports.server, 68: ports.client }[reply.to.port] ?? reply.to.port;
    const address =
      reply.to.address === limitedBroadcast ? "255.255.255.255" : formatIpv4(reply.to.address);
    return socket.send(encodeMessage(reply.message), address, port);
  }
}

const typeNames: Readonly<Record<number, string>> = { 2: "offer", 5: "ack", 6: "nak" };

function closeAll(segment: Segment): void {
  for (const socket of segment.sockets) socket.close();
}

/** This node's address on the interface: one in the subnet that policy names, else the first. */
function addressFor(policy: InterfacePolicy): Ipv4 | undefined {
  const subnet = policy.subnet === undefined ? undefined : parseSubnet(policy.subnet);
  for (const entry of networkInterfaces()[policy.name] ?? []) {
    if (entry.family !== "IPv4") continue;
    const address = parseIpv4(entry.address);
    if (address === undefined) continue;
    if (subnet === undefined || contains(subnet, address)) return address;
  }
  return undefined;
}
