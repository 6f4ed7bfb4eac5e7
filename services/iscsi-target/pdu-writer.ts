/** PDUs of the target into a connection's send queue: headers, segments made here, digests. */
import { crc32c } from "#lib/volume/checksum.ts";
import { writeU24, writeU32 } from "#lib/wire/iscsi/layout.ts";
import { bhsBytes, padding } from "#lib/wire/iscsi/pdu.ts";
import type { Connection } from "./connection.ts";
import type { DriverHost } from "./driver.ts";
import type { SendQueue } from "./send-queue.ts";

export class PduWriter {
  private readonly queues: SendQueue;
  private readonly host: DriverHost;

  constructor(queues: SendQueue, host: DriverHost) {
    this.queues = queues;
    this.host = host;
  }

  /** Queues a header with what all share; the caller fills in the rest, then `finishHeader`. */
  header(c: Connection, opcode: number, flags: number, initiatorTag: number): number {
    const at = this.queues.header(c.id, bhsBytes + (c.headerDigest ? 4 : 0));
    const bytes = this.queues.headers;
    bytes.fill(0, at, at + bhsBytes);
    bytes[at] = opcode;
    bytes[at + 1] = flags;
    writeU32(bytes, at + 16, initiatorTag);
    writeU32(bytes, at + 28, c.expCmdSN);
    writeU32(bytes, at + 32, c.maxCmdSN());
    if (!c.sendAnnounced) {
      c.sendAnnounced = true;
      this.host.sendReady(c.id);
    }
    return at;
  }

  finishHeader(c: Connection, at: number): void {
    if (!c.headerDigest) return;
    const bytes = this.queues.headers;
    writeDigest(bytes, at + bhsBytes, crc32c(bytes.subarray(at, at + bhsBytes)));
  }

  /** Queues pad bytes and the data digest of a segment just queued. */
  finishSegment(
    c: Connection,
    memory: Uint8Array,
    offset: number,
    length: number,
    pad: number,
  ): void {
    const digest = c.dataDigest ? 4 : 0;
    const at = this.queues.header(c.id, pad + digest);
    const bytes = this.queues.headers;
    bytes.fill(0, at, at + pad);
    if (digest === 0) return;
    let crc = crc32c(memory.subarray(offset, offset + length));
    if (pad > 0) crc = crc32c(bytes.subarray(at, at + pad), crc);
    writeDigest(bytes, at + pad, crc);
  }

  /** Queues a whole PDU with a segment made here. Check `queues.room(id, 3, bytes)` first. */
  send(c: Connection, bhs: Uint8Array, segment: Uint8Array | undefined): void {
    const at = this.header(c, bhs[0], bhs[1], 0);
    const bytes = this.queues.headers;
    bytes.set(bhs, at);
    const length = segment?.length ?? 0;
    writeU24(bytes, at + 5, length);
    writeU32(bytes, at + 28, c.expCmdSN);
    writeU32(bytes, at + 32, c.maxCmdSN());
    this.finishHeader(c, at);
    if (segment === undefined || length === 0) return;
    const into = this.queues.header(c.id, length);
    bytes.set(segment, into);
    const pad = padding(length);
    if (pad > 0 || c.dataDigest) this.finishSegment(c, bytes, into, length, pad);
  }
}

function writeDigest(bytes: Uint8Array, at: number, crc: number): void {
  // Digests go out least significant byte first (RFC 7143 section 13.1, RFC 3385).
  bytes[at] = crc;
  bytes[at + 1] = crc >>> 8;
  bytes[at + 2] = crc >>> 16;
  bytes[at + 3] = crc >>> 24;
}
