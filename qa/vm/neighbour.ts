/**
 * A neighbour on a segment, made of frames: it speaks ARP, ICMP echo and just enough TCP and UDP to
 * knock at ports, with or without a VLAN tag. It costs no guest, counts every lost answer, and sees
 * what a switch port would see.
 *
 *   0        6        12      14      (16    18)
 *   +--------+--------+-------+-------+------+----------- - -
 *   | to     | from   | 8100  | VLAN  | type | payload        tagged (IEEE 802.1Q)
 *   | to     | from   | type  | payload                       untagged
 */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { frameSplitter } from "./segment.ts";

export interface NeighbourOptions {
  /** The segment's socket. */
  readonly path: string;
  readonly mac: string;
  readonly address: string;
  /** Tag of all that is sent; what comes with another, or none, is not for it. */
  readonly vlan?: number;
}

export interface PingResult {
  readonly sent: number;
  readonly lost: number;
  /** Longest time without an answer, in milliseconds. */
  readonly longestGapMs: number;
}

export type PortState = "open" | "closed" | "silent";

const etherIpv4 = 0x0800;
const etherArp = 0x0806;
const etherVlan = 0x8100;
const protocolIcmp = 1;
const protocolTcp = 6;
const protocolUdp = 17;
const tcpFlags = { syn: 0x02, rst: 0x04, ack: 0x10 } as const;

interface Packet {
  readonly protocol: number;
  readonly from: string;
  readonly payload: Buffer;
}

export class Neighbour {
  readonly #options: NeighbourOptions;
  readonly #socket: Socket;
  readonly #mac: Buffer;
  readonly #address: Buffer;
  readonly #known = new Map<string, Buffer>();
  readonly #listeners = new Set<(packet: Packet) => void>();
  #serial = 1;
  /** ARP announcements seen, by which a bond tells switches where it is now. */
  announcements = 0;

  private constructor(options: NeighbourOptions, socket: Socket) {
    this.#options = options;
    this.#socket = socket;
    this.#mac = Buffer.from(options.mac.replaceAll(":", ""), "hex");
    this.#address = addressBytes(options.address);
    const split = frameSplitter((frame) => this.#receive(frame.subarray(4)));
    socket.on("data", (bytes: Buffer) => void split(bytes));
    socket.on("error", () => {});
  }

  static async join(options: NeighbourOptions): Promise<Neighbour> {
    const socket = connect(options.path);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new Neighbour(options, socket);
  }

  leave(): void {
    this.#socket.destroy();
  }

  /** Asks anew who has which address. */
  forget(): void {
    this.#known.clear();
  }

  /** Hardware address of `target`; undefined if nobody answers within `timeoutMs`. */
  async resolve(target: string, timeoutMs = 3_000): Promise<Buffer | undefined> {
    const end = Date.now() + timeoutMs;
    for (;;) {
      const known = this.#known.get(target);
      if (known !== undefined) return known;
      if (Date.now() > end) return undefined;
      this.#sendArp(1, Buffer.alloc(6, 0xff), Buffer.alloc(6), addressBytes(target));
      await sleep(200);
    }
  }

  /** `count` echoes of `sizeBytes` (the IP packet's length), one each `intervalMs`, never fragmented. */
  async ping(
    target: string,
    options: { readonly count: number; readonly intervalMs: number; readonly sizeBytes?: number },
  ): Promise<PingResult> {
    const mac = await this.resolve(target);
    const { count, intervalMs, sizeBytes = 84 } = options;
    if (mac === undefined) return { sent: count, lost: count, longestGapMs: count * intervalMs };
    const id = 0x4b00 + (this.#serial++ & 0xff);
    const answered = new Set<number>();
    let last = Date.now();
    let longestGapMs = 0;
    const note = () => {
      longestGapMs = Math.max(longestGapMs, Date.now() - last);
      last = Date.now();
    };
    const forget = this.#listen(({ protocol, from, payload }) => {
      if (protocol !== protocolIcmp || from !== target || payload[0] !== 0) return;
      if (payload.readUInt16BE(4) !== id) return;
      answered.add(payload.readUInt16BE(6));
      note();
    });
    try {
      for (let index = 0; index < count; index++) {
        const echo = Buffer.alloc(sizeBytes - 20, 0x61);
        echo.set([8, 0, 0, 0]);
        echo.writeUInt16BE(id, 4);
        echo.writeUInt16BE(index, 6);
        echo.writeUInt16BE(checksum(echo), 2);
        this.#sendIp(mac, target, protocolIcmp, echo);
        await sleep(intervalMs);
      }
      // The last answers are on their way; emulation takes its time.
      for (let wait = 0; wait < 20 && answered.size < count; wait++) await sleep(100);
      if (answered.size < count) note();
    } finally {
      forget();
    }
    return { sent: count, lost: count - answered.size, longestGapMs };
  }

  /** Open: SYN is answered with SYN; closed: with RST; silent: not at all, asked three times. */
  async knockTcp(target: string, ports: readonly number[]): Promise<Map<number, PortState>> {
    const mac = await this.#needed(target);
    const found = new Map<number, PortState>();
    const source = 40_000 + (this.#serial++ % 20_000);
    const forget = this.#listen(({ protocol, from, payload }) => {
      if (protocol !== protocolTcp || from !== target || payload.readUInt16BE(2) !== source) return;
      const flags = payload[13];
      const port = payload.readUInt16BE(0);
      if ((flags & tcpFlags.rst) !== 0) found.set(port, "closed");
      else if ((flags & tcpFlags.syn) !== 0) {
        found.set(port, "open");
        // Nothing is left half open there.
        this.#sendTcp(mac, target, source, port, tcpFlags.rst, payload.readUInt32BE(8));
      }
    });
    try {
      for (let round = 0; round < 3; round++) {
        const missing = ports.filter((port) => !found.has(port));
        for (const [index, port] of missing.entries()) {
          this.#sendTcp(mac, target, source, port, tcpFlags.syn, 1_000);
          if (index % 32 === 31) await sleep(20);
        }
        for (let wait = 0; wait < 30 && found.size < ports.length; wait++) await sleep(100);
      }
    } finally {
      forget();
    }
    return new Map(ports.map((port) => [port, found.get(port) ?? "silent"]));
  }

  /** Closed: ICMP says that the port is unreachable; else silent, as an open port may be too. */
  async knockUdp(target: string, ports: readonly number[]): Promise<Map<number, PortState>> {
    const mac = await this.#needed(target);
    const found = new Map<number, PortState>();
    const source = 40_000 + (this.#serial++ % 20_000);
    const forget = this.#listen(({ protocol, from, payload }) => {
      if (from !== target) return;
      if (protocol === protocolUdp && payload.readUInt16BE(2) === source) {
        found.set(payload.readUInt16BE(0), "open");
      }
      // The refused packet's head follows 8 bytes of ICMP (RFC 792).
      if (protocol === protocolIcmp && payload[0] === 3 && payload[1] === 3) {
        const quoted = payload.subarray(8 + (payload[8] & 15) * 4);
        if (quoted.readUInt16BE(0) === source) found.set(quoted.readUInt16BE(2), "closed");
      }
    });
    try {
      for (const port of ports) {
        // The kernel answers few of these a second (icmp_ratelimit).
        for (let round = 0; round < 3 && !found.has(port); round++) {
          const datagram = Buffer.alloc(16);
          datagram.writeUInt16BE(source, 0);
          datagram.writeUInt16BE(port, 2);
          datagram.writeUInt16BE(16, 4);
          this.#sendIp(mac, target, protocolUdp, datagram);
          for (let wait = 0; wait < 12 && !found.has(port); wait++) await sleep(100);
        }
      }
    } finally {
      forget();
    }
    return new Map(ports.map((port) => [port, found.get(port) ?? "silent"]));
  }

  async #needed(target: string): Promise<Buffer> {
    const mac = await this.resolve(target);
    if (mac === undefined) throw new Error(`Nobody has ${target} on this network.`);
    return mac;
  }

  #listen(listener: (packet: Packet) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #receive(frame: Buffer): void {
    if (frame.length < 34) return;
    const tagged = frame.readUInt16BE(12) === etherVlan;
    const vlan = tagged ? frame.readUInt16BE(14) & 0xfff : undefined;
    if (vlan !== this.#options.vlan) return;
    const at = tagged ? 16 : 12;
    const body = frame.subarray(at + 2);
    const type = frame.readUInt16BE(at);
    if (type === etherArp) this.#receiveArp(body);
    const toMe = frame.subarray(0, 6).equals(this.#mac);
    if (type !== etherIpv4 || !toMe || !body.subarray(16, 20).equals(this.#address)) return;
    // A piece of a packet that was too large there is no answer.
    if ((body.readUInt16BE(6) & 0x3fff) !== 0) return;
    const headBytes = (body[0] & 15) * 4;
    const packet = {
      protocol: body[9],
      from: [...body.subarray(12, 16)].join("."),
      payload: body.subarray(headBytes, body.readUInt16BE(2)),
    };
    for (const listener of this.#listeners) listener(packet);
  }

  #receiveArp(body: Buffer): void {
    const mac = Buffer.from(body.subarray(8, 14));
    const from = body.subarray(14, 18);
    const target = body.subarray(24, 28);
    if (from.equals(target)) this.announcements++;
    this.#known.set([...from].join("."), mac);
    const asked = body.readUInt16BE(6) === 1 && target.equals(this.#address);
    if (asked) this.#sendArp(2, mac, mac, Buffer.from(from));
  }

  #sendArp(operation: 1 | 2, to: Buffer, targetMac: Buffer, target: Buffer): void {
    const head = Buffer.from([0, 1, 8, 0, 6, 4, 0, operation]);
    const body = Buffer.concat([head, this.#mac, this.#address, targetMac, target]);
    this.#send(to, etherArp, body);
  }

  #sendTcp(
    mac: Buffer,
    target: string,
    source: number,
    port: number,
    flags: number,
    sequence: number,
  ): void {
    const segment = Buffer.alloc(20);
    segment.writeUInt16BE(source, 0);
    segment.writeUInt16BE(port, 2);
    segment.writeUInt32BE(sequence >>> 0, 4);
    segment.set([0x50, flags], 12);
    segment.writeUInt16BE(1024, 14);
    const pseudo = Buffer.concat([
      ...[this.#address, addressBytes(target)],
      ...[Buffer.from([0, protocolTcp, 0, segment.length]), segment],
    ]);
    segment.writeUInt16BE(checksum(pseudo), 16);
    this.#sendIp(mac, target, protocolTcp, segment);
  }

  #sendIp(mac: Buffer, target: string, protocol: number, payload: Buffer): void {
    const head = Buffer.alloc(20);
    head[0] = 0x45;
    head.writeUInt16BE(20 + payload.length, 2);
    head.writeUInt16BE(this.#serial++ & 0xffff, 4);
    // Don't fragment: what doesn't fit is lost, and that is what shows the MTU.
    head.set([0x40, 0, 64, protocol], 6);
    this.#address.copy(head, 12);
    addressBytes(target).copy(head, 16);
    head.writeUInt16BE(checksum(head), 10);
    this.#send(mac, etherIpv4, Buffer.concat([head, payload]));
  }

  #send(to: Buffer, type: number, body: Buffer): void {
    const { vlan } = this.#options;
    const tag = vlan === undefined ? [] : [etherVlan >> 8, etherVlan & 255, vlan >> 8, vlan & 255];
    const head = Buffer.from([...to, ...this.#mac, ...tag, type >> 8, type & 255]);
    // The least that Ethernet carries.
    const padding = Buffer.alloc(Math.max(0, 60 - head.length - body.length));
    const frame = Buffer.concat([head, body, padding]);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(frame.length);
    this.#socket.write(Buffer.concat([length, frame]));
  }
}

function addressBytes(address: string): Buffer {
  return Buffer.from(address.split(".").map(Number));
}

/** RFC 1071. */
export function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += (bytes[at] << 8) | (bytes[at + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
