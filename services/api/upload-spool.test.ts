/** Uploads in parts: what is kept, what goes on, what is refused. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Clock } from "./clock.ts";
import { partOf } from "./routes/storage.ts";
import { UploadSpool } from "./upload-spool.ts";

let folder: string;
let nowMs = 0;
const clock = { bootMs: () => nowMs, now: () => new Date(0).toISOString() } as Clock;
const spoolOf = (boot = "boot-one") => new UploadSpool(join(folder, "spool"), clock, boot);
const never = new AbortController().signal;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-spool-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function* parts(bytes: Uint8Array, breakAt?: number) {
  for (let at = 0; at < bytes.length; at += 1000) {
    if (breakAt !== undefined && at >= breakAt) throw new Error("read ECONNRESET");
    yield bytes.subarray(at, Math.min(at + 1000, breakAt ?? bytes.length));
  }
  if (breakAt !== undefined) throw new Error("read ECONNRESET");
}
const send = (spool: UploadSpool, bytes: Buffer, from: number, breakAt?: number) =>
  spool.receive(
    "image",
    parts(bytes.subarray(from), breakAt === undefined ? undefined : breakAt - from),
    { fromByte: from, totalBytes: bytes.length },
    never,
    () => {},
  );

test("however often it breaks, in the end it is the file, byte for byte", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 20_000 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 6 }),
      fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }),
      async (length, breaks, restarts) => {
        const bytes = randomBytes(length);
        let spool = spoolOf();
        await spool.remove("image");
        for (const [index, share] of breaks.entries()) {
          const from = spool.receivedBytes("image");
          const breakAt = from + Math.floor(share * (length - from));
          const broke = await send(spool, bytes, from, breakAt);
          expect(broke?.message).toMatch(`broke off after ${breakAt} of ${length} bytes`);
          expect(spool.receivedBytes("image")).toBe(breakAt);
          // A service that was restarted finds what is there.
          if (restarts[index]) spool = spoolOf();
        }
        expect(await send(spool, bytes, spool.receivedBytes("image"))).toBeNull();
        expect(readFileSync(spool.path("image")).equals(bytes)).toBe(true);
      },
    ),
    { numRuns: 60 },
  );
});

test("a file that ends early breaks off, too; one without a length ends where it ends", async () => {
  const spool = spoolOf();
  const part = { fromByte: 0, totalBytes: 100 };
  const short = await spool.receive("image", parts(Buffer.alloc(60)), part, never, () => {});
  expect(short?.message).toMatch("broke off after 60 of 100 bytes");
  const open = { fromByte: 0, totalBytes: null };
  expect(await spool.receive("image", parts(Buffer.alloc(60)), open, never, () => {})).toBeNull();
  expect(spool.receivedBytes("image")).toBe(60);
});

test("one that began without a length is whole when it has the length that its rest names", async () => {
  const spool = spoolOf();
  const bytes = randomBytes(5000);
  const open = { fromByte: 0, totalBytes: null };
  const broke = await spool.receive("image", parts(bytes, 3000), open, never, () => {});
  expect(broke?.message).toMatch("broke off after 3000 bytes");
  const rest = { fromByte: 3000, totalBytes: 5000 };
  const short = parts(bytes.subarray(3000, 4000));
  const again = await spool.receive("image", short, rest, never, () => {});
  expect(again?.message).toMatch("broke off after 4000 of 5000 bytes");
  expect(await send(spool, bytes, 4000)).toBeNull();
  expect(readFileSync(spool.path("image")).equals(bytes)).toBe(true);
});

test("more than the file has is refused", async () => {
  const spool = spoolOf();
  const part = { fromByte: 0, totalBytes: 1500 };
  await expect(
    spool.receive("image", parts(Buffer.alloc(2000)), part, never, () => {}),
  ).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    message: "More came than a file of 1500 bytes has.",
  });
});

test("from byte 0 it begins anew", async () => {
  const spool = spoolOf();
  await send(spool, Buffer.alloc(5000, 1), 0, 3000);
  const other = Buffer.alloc(4000, 2);
  expect(await send(spool, other, 0)).toBeNull();
  expect(readFileSync(spool.path("image")).equals(other)).toBe(true);
  expect(readdirSync(join(folder, "spool"))).toHaveLength(1);
});

test("a part that isn't the missing one is refused, and so is another file", async () => {
  const spool = spoolOf();
  const bytes = randomBytes(5000);
  await expect(send(spool, bytes, 10)).rejects.toMatchObject({ code: "CONFLICT" });
  await send(spool, bytes, 0, 3000);
  for (const from of [1, 2999, 3001, 4999]) {
    await expect(send(spool, bytes, from)).rejects.toMatchObject({
      code: "CONFLICT",
      message: "The node has 3000 bytes of it.",
    });
  }
  await expect(send(spool, Buffer.concat([bytes, bytes]), 3000)).rejects.toMatchObject({
    code: "CONFLICT",
    message: "The upload began with a file of 5000 bytes, this one has 10000.",
  });
  expect(await send(spool, bytes, 3000), "nothing was lost by that").toBeNull();
  expect(readFileSync(spool.path("image")).equals(bytes)).toBe(true);
});

test("what another start of the machine left is not trusted, nor what isn't ours", async () => {
  await send(spoolOf(), randomBytes(5000), 0, 3000);
  for (const name of ["image", "other.boot-one", "x.y.z.12", ".12"]) {
    writeFileSync(join(folder, "spool", name), "?");
  }
  expect(spoolOf().receivedBytes("image")).toBe(3000);
  expect(readdirSync(join(folder, "spool"))).toEqual(["image.boot-one.5000"]);
  expect(spoolOf("boot-two").receivedBytes("image")).toBe(0);
  expect(readdirSync(join(folder, "spool"))).toEqual([]);
});

test("a cancelled one ends at once, though its sender is silent", async () => {
  const spool = spoolOf();
  const stop = new AbortController();
  async function* silent() {
    yield Buffer.alloc(10);
    await new Promise(() => {});
  }
  const part = { fromByte: 0, totalBytes: 100 };
  const received = spool.receive("image", silent(), part, stop.signal, () => {});
  await expect.poll(() => spool.receivedBytes("image")).toBe(10);
  stop.abort(new Error("the network is gone"));
  expect((await received)?.message).toMatch("broke off after 10 of 100 bytes");
});

test("one that is ended while a part is written is as one that broke off", async () => {
  const spool = spoolOf();
  const stop = new AbortController();
  async function* busy() {
    yield Buffer.alloc(10);
    stop.abort(new Error("another part came"));
    yield Buffer.alloc(10);
  }
  const part = { fromByte: 0, totalBytes: 100 };
  const received = await spool.receive("image", busy(), part, stop.signal, () => {});
  expect(received?.message).toMatch("broke off after 10 of 100 bytes");
});

test("one that can't fit is refused before a byte of it is taken", async () => {
  const spool = spoolOf();
  const part = { fromByte: 0, totalBytes: 2 ** 52 };
  await expect(
    spool.receive("image", parts(Buffer.alloc(10)), part, never, () => {}),
  ).rejects.toMatchObject({ code: "NO_SPACE" });
  expect(existsSync(join(folder, "spool"))).toBe(true);
  expect(readdirSync(join(folder, "spool"))).toEqual([]);
});

test("it knows for how long nobody has gone on", async () => {
  const spool = spoolOf();
  await send(spool, randomBytes(5000), 0, 3000);
  nowMs += 5000;
  expect(spool.idleMs("image")).toBe(5000);
  expect(spool.ids).toEqual(["image"]);
  await spool.remove("image");
  expect(spool.ids).toEqual([]);
});

describe("Content-Range", () => {
  test("all of it, or all from a byte on", () => {
    expect(partOf(undefined, undefined)).toEqual({ fromByte: 0, totalBytes: null });
    expect(partOf(undefined, "12")).toEqual({ fromByte: 0, totalBytes: 12 });
    expect(partOf("bytes 5-11/12", "7")).toEqual({ fromByte: 5, totalBytes: 12 });
    expect(partOf("bytes 5-11/12", undefined)).toEqual({ fromByte: 5, totalBytes: 12 });
  });

  test.each([
    ["bytes 5-10/12", "6"],
    ["bytes 5-11/12", "8"],
    ["bytes 12-11/12", "0"],
    ["bytes 5-11/*", "7"],
    ["bytes */12", "0"],
    ["bytes=5-11/12", "7"],
    ["bytes 5-12/12", "8"],
    ["items 5-11/12", "7"],
    ["", "7"],
    ["bytes 9999999999999999999-9999999999999999999/1", "1"],
  ])("%s of %s bytes is refused", (range, length) => {
    expect(() => partOf(range, length)).toThrow(/Content-Range: .* is not taken/);
  });

  test("nothing else is taken, whatever it is", () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.option(fc.nat().map(String), { nil: undefined }),
        (range, length) => {
          try {
            const { fromByte, totalBytes } = partOf(range, length);
            expect(fromByte).toBeLessThan(totalBytes!);
          } catch (error) {
            expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
          }
        },
      ),
    );
  });
});
