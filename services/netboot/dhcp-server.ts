/**
 * What netboot answers to a DHCP message, decided without sockets: RFC 2131 section 4.3 in server
 * mode, PXE 2.1 proxyDHCP beside another server.
 *
 *   server:  discover -> offer     request -> ack | nak | silence    decline, release -> silence
 *            inform -> ack
 *   proxy:   discover of a PXE client on port 67 -> offer without an address
 *            request or inform of one on port 4011 -> ack
 */
import type { MacAddress } from "#lib/model/ids.ts";
import {
  formatIpv4,
  type Ipv4,
  isHost,
  limitedBroadcast,
  unspecified,
} from "#lib/wire/dhcp/address.ts";
import {
  addressOption,
  bootRequest,
  type DhcpMessage,
  longestFile,
  macOf,
  messageType,
  replyTo,
  typeOf,
} from "#lib/wire/dhcp/message.ts";
import { asciiBytes, asciiText, optionCode, uint8, uint32 } from "#lib/wire/dhcp/options.ts";
import { ipxeNoProxy, type PxeClient, pxeClientOf, pxeVendorOptions } from "#lib/wire/dhcp/pxe.ts";
import { type Claimant, declineMs, type Lease, type LeaseTable, offerMs } from "./lease.ts";
import { type BootFile, bootFileFor, type Loaders } from "./loader.ts";
import type { InterfacePolicy, NetbootConfig } from "./schema.ts";
import { interfaceScope, relayedScope, type Scope } from "./scope.ts";

export const serverPort = 67;
export const clientPort = 68;
export const proxyPort = 4011;

/** Where a message came in. */
export interface Arrival {
  readonly policy: InterfacePolicy;
  /** This node's address on that interface: server identifier and next server. */
  readonly address: Ipv4;
  readonly port: typeof serverPort | typeof proxyPort;
  readonly from: { readonly address: Ipv4; readonly port: number };
}

export interface Reply {
  readonly message: DhcpMessage;
  readonly to: { readonly address: Ipv4; readonly port: number };
}

/** A PXE client was given an address, or a boot file beside another server's. */
export interface Sighting {
  readonly mac: MacAddress;
  readonly client: PxeClient;
  readonly ip?: Ipv4;
  readonly boot?: BootFile;
}

export type Decision = ({ readonly reply: Reply } | { readonly drop: string }) & {
  readonly sighting?: Sighting;
};

export interface DhcpServerContext {
  readonly leases: LeaseTable;
  readonly now: () => number;
  readonly config: () => NetbootConfig;
  readonly loaders: () => Loaders;
  /** Port of the boot script's server; undefined when there is none, and so no boot. */
  readonly httpPort: () => number | undefined;
  /** Makes a change durable. */
  readonly commit: (lease: Lease) => Promise<void>;
  readonly free: (ip: Ipv4) => Promise<void>;
  /** True if some other machine answers to `ip`; asked once before a new address is offered. */
  readonly inUse: (ip: Ipv4, mac: MacAddress) => Promise<boolean>;
  /** Another server was chosen. */
  readonly otherServer: (name: string, address: Ipv4) => void;
}

export class DhcpServer {
  #context: DhcpServerContext;

  constructor(context: DhcpServerContext) {
    this.#context = context;
  }

  async handle(message: DhcpMessage, arrival: Arrival): Promise<Decision> {
    if (message.op !== bootRequest) return { drop: "not-a-request" };
    const mac = macOf(message);
    if (mac === undefined) return { drop: "not-ethernet" };
    const type = typeOf(message);
    if (type === undefined) return { drop: "no-message-type" };
    if (arrival.port === proxyPort) return this.#proxyReply(message, mac, type, arrival);
    if (arrival.policy.mode === "proxy") {
      if (type === messageType.request) this.#noteOther(message, arrival);
      return this.#proxyReply(message, mac, type, arrival);
    }
    const scope =
      message.giaddr === unspecified
        ? interfaceScope(arrival.policy)
        : relayedScope(this.#context.config(), message.giaddr);
    if (scope === undefined) return { drop: "relay-of-unknown-subnet" };
    const claimant: Claimant = {
      mac,
      clientId: clientIdOf(message, mac),
      firmware: pxeClientOf(message) !== undefined,
    };
    switch (type) {
      case messageType.discover:
        return this.#discover(message, arrival, scope, claimant);
      case messageType.request:
        return this.#request(message, arrival, scope, claimant);
      case messageType.decline:
        return this.#decline(message, arrival, scope, claimant);
      case messageType.release:
        return this.#release(message, scope, claimant);
      case messageType.inform:
        return this.#inform(message, arrival, scope);
      default:
        return { drop: "not-a-client-message" };
    }
  }

  async #discover(
    message: DhcpMessage,
    arrival: Arrival,
    scope: Scope,
    claimant: Claimant,
  ): Promise<Decision> {
    const { leases, now, inUse, commit } = this.#context;
    const taken = takenIn(scope, arrival);
    const wanted = addressOption(message, optionCode.requestedAddress);
    for (let attempt = 0; attempt < 3; attempt++) {
      const ip = leases.choose(scope, claimant, wanted, taken);
      if (ip === undefined) return { drop: "pool-exhausted" };
      const held = leases.held(scope, claimant);
      const fresh = held?.ip !== ip;
      if (fresh && message.giaddr === unspecified && (await inUse(ip, claimant.mac))) {
        await commit({
          ...leaseOf(scope, claimant, message, ip, "declined", now() + declineMs),
          clientId: "in-use",
        });
        continue;
      }
      // While the probe ran, another discover may have taken it.
      if (!leases.mayHave(scope, claimant, ip, taken)) continue;
      const bound = held?.ip === ip && held.state === "bound" && held.expiresAtMs > now();
      if (!bound) leases.put(leaseOf(scope, claimant, message, ip, "offered", now() + offerMs));
      return this.#leaseReply(message, arrival, scope, claimant, messageType.offer, ip);
    }
    return { drop: "pool-in-use-by-others" };
  }

  async #request(
    message: DhcpMessage,
    arrival: Arrival,
    scope: Scope,
    claimant: Claimant,
  ): Promise<Decision> {
    const { leases, now, commit } = this.#context;
    const server = addressOption(message, optionCode.serverIdentifier);
    if (server !== undefined && server !== arrival.address) {
      // It chose another server: our offer is free again.
      this.#noteOther(message, arrival);
      const held = leases.held(scope, claimant);
      if (held?.state === "offered") leases.remove(held.ip);
      return { drop: "chose-another-server" };
    }
    const wanted =
      addressOption(message, optionCode.requestedAddress) ??
      (message.ciaddr === unspecified ? undefined : message.ciaddr);
    if (wanted === undefined) return { drop: "request-without-address" };
    const taken = takenIn(scope, arrival);
    const declined = leases.at(wanted)?.state === "declined";
    if (declined || !leases.mayHave(scope, claimant, wanted, taken)) {
      return { reply: this.#nak(message, arrival, `${formatIpv4(wanted)} is not yours here`) };
    }
    const expiresAtMs = now() + scope.leaseSeconds * 1000;
    await commit(leaseOf(scope, claimant, message, wanted, "bound", expiresAtMs));
    return this.#leaseReply(message, arrival, scope, claimant, messageType.ack, wanted);
  }

  /** RFC 2131 section 4.3.3: the client found somebody else on the address. */
  async #decline(
    message: DhcpMessage,
    arrival: Arrival,
    scope: Scope,
    claimant: Claimant,
  ): Promise<Decision> {
    const ip = addressOption(message, optionCode.requestedAddress);
    const server = addressOption(message, optionCode.serverIdentifier);
    if (ip === undefined || (server !== undefined && server !== arrival.address)) {
      return { drop: "decline-not-ours" };
    }
    const lease = this.#context.leases.at(ip);
    if (lease === undefined || lease.clientId !== claimant.clientId) {
      return { drop: "decline-not-ours" };
    }
    await this.#context.commit(
      leaseOf(scope, claimant, message, ip, "declined", this.#context.now() + declineMs),
    );
    return { drop: "declined" };
  }

  async #release(message: DhcpMessage, scope: Scope, claimant: Claimant): Promise<Decision> {
    const lease = this.#context.leases.at(message.ciaddr);
    if (lease?.clientId !== claimant.clientId || lease.scope !== scope.name) {
      return { drop: "release-not-ours" };
    }
    await this.#context.free(message.ciaddr);
    return { drop: "released" };
  }

  #inform(message: DhcpMessage, arrival: Arrival, scope: Scope): Decision {
    if (message.ciaddr === unspecified) return { drop: "inform-without-address" };
    const options = this.#head(messageType.ack, arrival);
    addScope(options, scope);
    const reply = { ...replyTo(message, options), ciaddr: message.ciaddr };
    return { reply: { message: reply, to: { address: message.ciaddr, port: clientPort } } };
  }

  #leaseReply(
    message: DhcpMessage,
    arrival: Arrival,
    scope: Scope,
    claimant: Claimant,
    type: number,
    ip: Ipv4,
  ): Decision {
    const options = this.#head(type, arrival);
    const seconds = scope.leaseSeconds;
    options.set(optionCode.leaseTime, uint32(seconds));
    options.set(optionCode.renewalTime, uint32(Math.floor(seconds / 2)));
    options.set(optionCode.rebindingTime, uint32(Math.floor((seconds * 7) / 8)));
    addScope(options, scope);
    const hostname = this.#context
      .config()
      .reservations.find((entry) => entry.mac === claimant.mac)?.hostname;
    if (hostname !== undefined) options.set(optionCode.hostName, asciiBytes(hostname));
    const client = pxeClientOf(message);
    const boot = client === undefined ? undefined : this.#boot(client, claimant.mac, arrival);
    const bare = { ...replyTo(message, options), yiaddr: ip, siaddr: arrival.address };
    const full =
      client === undefined || boot === undefined
        ? bare
        : withBoot(bare, message, client, boot, arrival, false);
    const reply = {
      message: { ...full, ciaddr: type === messageType.ack ? message.ciaddr : unspecified },
      to: destination(message),
    };
    if (client === undefined || type !== messageType.ack) return { reply };
    const sighting = { mac: claimant.mac, client, ip };
    return { reply, sighting: boot === undefined ? sighting : { ...sighting, boot } };
  }

  #nak(message: DhcpMessage, arrival: Arrival, text: string): Reply {
    const options = this.#head(messageType.nak, arrival);
    options.set(optionCode.errorMessage, asciiBytes(text));
    const reply = replyTo(message, options);
    // RFC 2131 section 4.3.2: through a relay the broadcast flag makes it broadcast the NAK.
    const relayed = message.giaddr !== unspecified;
    return {
      message: relayed ? { ...reply, flags: reply.flags | 0x8000 } : reply,
      to: relayed
        ? { address: message.giaddr, port: serverPort }
        : { address: limitedBroadcast, port: clientPort },
    };
  }

  #proxyReply(message: DhcpMessage, mac: MacAddress, type: number, arrival: Arrival): Decision {
    const client = pxeClientOf(message);
    if (client === undefined) return { drop: "not-a-pxe-client" };
    const asked = arrival.port === proxyPort;
    const expected = asked
      ? type === messageType.request || type === messageType.inform
      : type === messageType.discover;
    if (!expected) return { drop: "not-for-a-proxy" };
    const boot = this.#boot(client, mac, arrival);
    if (boot === undefined) {
      return { drop: "no-loader-for-architecture", sighting: { mac, client } };
    }
    const options = this.#head(asked ? messageType.ack : messageType.offer, arrival);
    const bare = {
      ...replyTo(message, options),
      ciaddr: message.ciaddr,
      siaddr: arrival.address,
    };
    const to =
      asked && arrival.from.address !== unspecified
        ? arrival.from
        : destination({ ...message, ciaddr: unspecified });
    const ip = message.ciaddr === unspecified ? {} : { ip: message.ciaddr };
    return {
      reply: { message: withBoot(bare, message, client, boot, arrival, true), to },
      sighting: { mac, client, boot, ...ip },
    };
  }

  #boot(client: PxeClient, mac: MacAddress, arrival: Arrival): BootFile | undefined {
    const httpPort = this.#context.httpPort();
    if (httpPort === undefined) return undefined;
    const target = { address: formatIpv4(arrival.address), httpPort };
    return bootFileFor(client, mac, this.#context.loaders(), target);
  }

  #noteOther(message: DhcpMessage, arrival: Arrival): void {
    const server = addressOption(message, optionCode.serverIdentifier);
    if (server !== undefined && server !== arrival.address && server !== unspecified) {
      this.#context.otherServer(arrival.policy.name, server);
    }
  }

  #head(type: number, arrival: Arrival): Map<number, Uint8Array> {
    return new Map([
      [optionCode.messageType as number, uint8(type)],
      [optionCode.serverIdentifier, uint32(arrival.address)],
    ]);
  }
}

function clientIdOf(message: DhcpMessage, mac: MacAddress): string {
  const id = message.options.get(optionCode.clientIdentifier);
  // RFC 2132 section 9.14: at least two bytes; type 1 with the MAC is the MAC.
  if (id === undefined || id.length < 2) return `mac:${mac}`;
  const hex = Buffer.from(id.subarray(0, 255)).toString("hex");
  return hex === `01${mac.replaceAll(":", "")}` ? `mac:${mac}` : hex;
}

function takenIn(scope: Scope, arrival: Arrival): ReadonlySet<Ipv4> {
  return new Set(scope.router === undefined ? [arrival.address] : [arrival.address, scope.router]);
}

function leaseOf(
  scope: Scope,
  claimant: Claimant,
  message: DhcpMessage,
  ip: Ipv4,
  state: Lease["state"],
  expiresAtMs: number,
): Lease {
  const name = message.options.get(optionCode.hostName);
  const hostname = name === undefined ? "" : asciiText(name.subarray(0, 63));
  return {
    ip,
    mac: claimant.mac,
    clientId: claimant.clientId,
    ...(hostname === "" ? {} : { hostname }),
    scope: scope.name,
    state,
    firmware: claimant.firmware,
    expiresAtMs,
  };
}

function addScope(options: Map<number, Uint8Array>, scope: Scope): void {
  options.set(optionCode.subnetMask, uint32(scope.subnet.mask));
  options.set(optionCode.broadcastAddress, uint32(scope.subnet.broadcast));
  if (scope.router !== undefined && isHost(scope.subnet, scope.router)) {
    options.set(optionCode.router, uint32(scope.router));
  }
  if (scope.dns.length > 0) {
    options.set(optionCode.dns, Uint8Array.from(scope.dns.flatMap((ip) => [...uint32(ip)])));
  }
  if (scope.domain !== undefined) options.set(optionCode.domainName, asciiBytes(scope.domain));
}

function withBoot(
  reply: DhcpMessage,
  request: DhcpMessage,
  client: PxeClient,
  boot: BootFile,
  arrival: Arrival,
  proxy: boolean,
): DhcpMessage {
  const options = new Map(reply.options);
  options.set(optionCode.bootFileName, asciiBytes(boot.file));
  // iPXE takes an offer with option 60 for a proxy's, so it gets one only from a proxy.
  if (!client.ipxe || proxy) options.set(optionCode.vendorClass, asciiBytes(boot.vendor));
  if (boot.vendor === "PXEClient" && (!client.ipxe || proxy)) {
    options.set(optionCode.vendorSpecific, pxeVendorOptions(request));
  }
  if (boot.kind === "loader" && boot.vendor === "PXEClient") {
    options.set(optionCode.tftpServerName, asciiBytes(formatIpv4(arrival.address)));
  }
  if (client.ipxe && !proxy) options.set(optionCode.ipxe, ipxeNoProxy());
  if (client.machineId !== undefined) options.set(optionCode.clientMachineId, client.machineId);
  return {
    ...reply,
    siaddr: arrival.address,
    // BIOS PXE reads only the header's field; a longer name is in option 67 alone.
    file: boot.file.length <= longestFile ? boot.file : "",
    options,
  };
}

/**
 * RFC 2131 section 4.1. A client without an address yet gets a broadcast even if it didn't ask for
 * one: to send it a unicast frame would need a raw socket or an ARP entry made by hand.
 */
function destination(request: DhcpMessage): Reply["to"] {
  if (request.giaddr !== unspecified) return { address: request.giaddr, port: serverPort };
  if (request.ciaddr !== unspecified) return { address: request.ciaddr, port: clientPort };
  return { address: limitedBroadcast, port: clientPort };
}
