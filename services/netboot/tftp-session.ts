/**
 * One read by TFTP, decided without sockets or timers.
 *
 *   start --OACK--> negotiating --ACK 0--> sending --ACK of the last block--> done
 *   start --DATA--> sending
 *   any   --ERROR of the client--> failed        any --too many time-outs--> failed
 *
 * A step gives the packets to send. Blocks are sent straight out of the loader's bytes, so that a
 * session costs a few numbers.
 */
import { encodePacket, type Packet, type ReadOptions } from "#lib/wire/tftp/packet.ts";

export type SessionState = "negotiating" | "sending" | "done" | "failed";

export interface Step {
  readonly send: readonly Uint8Array[];
  readonly state: SessionState;
}

const nothing: readonly Uint8Array[] = [];

export class TftpSession {
  #bytes: Uint8Array;
  #options: ReadOptions;
  /** After block 65535 most clients expect 0, some 1. */
  #rollover: 0 | 1;
  #state: SessionState;
  /** Blocks acknowledged: the next one to send first is `#acked + 1`. */
  #acked = 0;
  #sentTo = 0;
  /** The window at `#acked` was already repeated for a duplicate ACK. */
  #repeatedAt = -1;
  readonly blockCount: number;

  constructor(bytes: Uint8Array, options: ReadOptions, rollover: 0 | 1 = 0) {
    this.#bytes = bytes;
    this.#options = options;
    this.#rollover = rollover;
    // A file that fills its last block is ended by an empty one (RFC 1350 section 6).
    this.blockCount = Math.floor(bytes.length / options.blockBytes) + 1;
    this.#state = options.accepted.size > 0 ? "negotiating" : "sending";
  }

  get state(): SessionState {
    return this.#state;
  }

  /** True until the client has acknowledged anything. */
  get untouched(): boolean {
    return this.#acked === 0;
  }

  start(): Step {
    return this.#step(this.#state === "negotiating" ? [this.#oack()] : this.#window());
  }

  receive(packet: Packet): Step {
    switch (packet.type) {
      case "error":
        this.#state = "failed";
        return this.#step(nothing);
      case "ack":
        return this.#acknowledge(packet.block);
      default:
        return this.#step(nothing);
    }
  }

  /** Nothing came: everything not acknowledged goes out again. */
  repeat(): Step {
    if (this.#state === "negotiating") return this.#step([this.#oack()]);
    return this.#step(this.#state === "sending" ? this.#window() : nothing);
  }

  #acknowledge(wire: number): Step {
    if (this.#state === "negotiating") {
      if (wire !== 0) return this.#step(nothing);
      this.#state = "sending";
      return this.#step(this.#window());
    }
    if (this.#state !== "sending") return this.#step(nothing);
    for (let block = this.#sentTo; block > this.#acked; block--) {
      if (this.#wire(block) !== wire) continue;
      this.#acked = block;
      if (block === this.blockCount) {
        this.#state = "done";
        return this.#step(nothing);
      }
      return this.#step(this.#window());
    }
    // RFC 7440 section 4: a repeated ACK means that the block after it was lost. With a window of
    // one it is only a late duplicate, and answering it would double every packet from here on.
    const lost = this.#options.windowBlocks > 1 && wire === this.#wire(this.#acked);
    if (!lost || this.#repeatedAt === this.#acked) return this.#step(nothing);
    this.#repeatedAt = this.#acked;
    return this.#step(this.#window());
  }

  #window(): Uint8Array[] {
    const packets: Uint8Array[] = [];
    const last = Math.min(this.#acked + this.#options.windowBlocks, this.blockCount);
    const { blockBytes } = this.#options;
    for (let block = this.#acked + 1; block <= last; block++) {
      const bytes = this.#bytes.subarray((block - 1) * blockBytes, block * blockBytes);
      packets.push(encodePacket({ type: "data", block: this.#wire(block), bytes }));
    }
    this.#sentTo = last;
    return packets;
  }

  #oack(): Uint8Array {
    return encodePacket({ type: "oack", options: this.#options.accepted });
  }

  #wire(block: number): number {
    if (block <= 65_535) return block;
    return this.#rollover === 0 ? block % 65_536 : ((block - 1) % 65_535) + 1;
  }

  #step(send: readonly Uint8Array[]): Step {
    return { send, state: this.#state };
  }
}
