import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodePacket, negotiate, type Packet } from "#lib/wire/tftp/packet.ts";
import { TftpSession } from "./tftp-session.ts";

const limits = { blockBytes: 1468, windowBlocks: 64 };

function session(size: number, options: Record<string, string> = {}, rollover: 0 | 1 = 0) {
  const bytes = Uint8Array.from({ length: size }, (_, index) => (index * 31) % 251);
  const granted = negotiate(new Map(Object.entries(options)), size, limits);
  return { bytes, session: new TftpSession(bytes, granted, rollover) };
}

function read(bytes: Uint8Array): Packet {
  const decoded = decodePacket(bytes);
  if ("malformed" in decoded) throw new Error(decoded.malformed);
  return decoded.packet;
}

const blocks = (packets: readonly Uint8Array[]) =>
  packets.map(read).map((packet) => (packet.type === "data" ? packet.block : packet.type));

describe("one transfer", () => {
  test("without options it begins with DATA 1", () => {
    expect(blocks(session(1000).session.start().send)).toEqual([1]);
  });

  test("with options it begins with an OACK and goes on at ACK 0", () => {
    const { session: it } = session(1000, { blksize: "100", windowsize: "3" });
    expect(blocks(it.start().send)).toEqual(["oack"]);
    expect(it.receive({ type: "ack", block: 5 }).send).toEqual([]);
    expect(blocks(it.receive({ type: "ack", block: 0 }).send)).toEqual([1, 2, 3]);
  });

  test("a file that fills its last block is ended by an empty one", () => {
    const { session: it } = session(512);
    it.start();
    expect(read(it.receive({ type: "ack", block: 1 }).send[0])).toEqual({
      type: "data",
      block: 2,
      bytes: new Uint8Array(),
    });
    expect(it.receive({ type: "ack", block: 2 }).state).toBe("done");
  });

  test("an ACK inside a window moves the window there", () => {
    const { session: it } = session(3000, { blksize: "100", windowsize: "4" });
    it.start();
    it.receive({ type: "ack", block: 0 });
    expect(blocks(it.receive({ type: "ack", block: 2 }).send)).toEqual([3, 4, 5, 6]);
  });

  test("a duplicate ACK in lockstep sends nothing (sorcerer's apprentice)", () => {
    const { session: it } = session(3000);
    it.start();
    it.receive({ type: "ack", block: 1 });
    expect(it.receive({ type: "ack", block: 1 }).send).toEqual([]);
  });

  test("a duplicate ACK of a window repeats it once", () => {
    const { session: it } = session(3000, { blksize: "100", windowsize: "4" });
    it.start();
    it.receive({ type: "ack", block: 0 });
    it.receive({ type: "ack", block: 4 });
    expect(blocks(it.receive({ type: "ack", block: 4 }).send)).toEqual([5, 6, 7, 8]);
    expect(it.receive({ type: "ack", block: 4 }).send).toEqual([]);
  });

  test("an ACK of what was not sent yet is ignored", () => {
    const { session: it } = session(3000);
    it.start();
    expect(it.receive({ type: "ack", block: 3 }).send).toEqual([]);
    expect(it.state).toBe("sending");
  });

  test("ERROR ends it in every state", () => {
    for (const options of [{}, { tsize: "0" }] as Record<string, string>[]) {
      const { session: it } = session(3000, options);
      it.start();
      expect(it.receive({ type: "error", code: 8, text: "" }).state).toBe("failed");
      expect(it.repeat().send).toEqual([]);
    }
  });

  test.each([
    [0, [65_534, 65_535, 0, 1, 2]],
    [1, [65_534, 65_535, 1, 2, 3]],
  ] as const)("past block 65535 the number rolls over to %i", (rollover, wire) => {
    const { session: it } = session(8 * 65_540, { blksize: "8" }, rollover);
    let step = it.start();
    step = it.receive({ type: "ack", block: 0 });
    const seen: number[] = [];
    for (let block = 1; block <= 65_538; block++) {
      const packet = read(step.send[0]);
      if (packet.type !== "data") throw new Error(packet.type);
      if (block >= 65_534) seen.push(packet.block);
      step = it.receive({ type: "ack", block: packet.block });
    }
    expect(seen).toEqual(wire);
  });

  test("any loss and duplication of packets still carries the file", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 5000 }),
        fc.integer({ min: 8, max: 1468 }),
        fc.integer({ min: 1, max: 16 }),
        fc.infiniteStream(fc.integer({ min: 0, max: 9 })),
        (size, blksize, windowsize, luck) => {
          const { bytes, session: it } = session(size, {
            blksize: String(blksize),
            windowsize: String(windowsize),
          });
          const received: number[] = [];
          let expected = 1;
          let last = false;
          let toClient = [...it.start().send];
          for (let round = 0; round < 20_000 && it.state !== "done"; round++) {
            const packet = toClient.shift();
            if (packet === undefined) {
              toClient = [...it.repeat().send];
              continue;
            }
            const fate = luck.next().value;
            if (fate === 0) continue;
            if (fate === 1) toClient.push(packet);
            const value = read(packet);
            let ack = 0;
            if (value.type === "data") {
              if (value.block === expected && !last) {
                received.push(...value.bytes);
                last = value.bytes.length < blksize;
                expected++;
              }
              ack = expected - 1;
            }
            if (fate !== 2) toClient.push(...it.receive({ type: "ack", block: ack }).send);
            // Bounded: what overflows a socket's buffer is lost.
            if (toClient.length > 200) toClient.length = 200;
          }
          expect(it.state).toBe("done");
          expect(Buffer.from(received).equals(Buffer.from(bytes))).toBe(true);
        },
      ),
      { numRuns: 200 },
    );
  });
});
