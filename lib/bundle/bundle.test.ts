import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import * as fixture from "./bundle.fixture.ts";
import { canonicalJson } from "./canonical-json.ts";
import { type BundleProblem, isBundleError } from "./errors.ts";
import { inspectBundle, unpackBundle, verifyBundle } from "./file.ts";
import { headerBytes } from "./header.ts";
import { encodeManifest, partNames } from "./manifest.ts";
import { readBundle } from "./reader.ts";
import { type SignatureBlock, signAs, signManifest } from "./signature.ts";
import type { BundleTarget } from "./target.ts";
import { emptyTrustState, type Trust, trustOf } from "./trust.ts";
import { describeParts, writeBundle } from "./writer.ts";

const { fixtureBundle, fixtureManifest, productionNode, productionTrust } = fixture;
const parts = fixture.fixtureParts();
const good = fixtureBundle();
const manifestBytes = encodeManifest(fixtureManifest()).length;
const partBytes = partNames.reduce((sum, name) => sum + parts[name].length, 0);
const partsAt = good.length - partBytes;

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-bundle-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function inFile(bytes: Buffer): string {
  const path = join(folder, "test.kbundle");
  writeFileSync(path, bytes);
  return path;
}

/** A source that counts what was taken of it. */
function sourceOf(bytes: Buffer, pieceBytes = 1 << 16) {
  const taken = { bytes: 0 };
  async function* pieces() {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      taken.bytes += piece.length;
      yield piece;
    }
  }
  return { taken, pieces: pieces() };
}

async function readAll(bytes: Buffer, trust = productionTrust, pieceBytes?: number) {
  const { pieces } = sourceOf(bytes, pieceBytes);
  const reader = await readBundle(pieces, trust, productionNode);
  const contents: Record<string, Buffer> = {};
  for await (const part of reader.parts()) {
    const held: Buffer[] = [];
    for await (const piece of part.pieces) held.push(Buffer.from(piece));
    contents[part.name] = Buffer.concat(held);
  }
  return { ...reader, contents };
}

describe("a good bundle", () => {
  test.each([1, 2, 7, 31, 33, 1000, 1 << 20])(
    "is read whole from pieces of %i bytes",
    async (size) => {
      const { manifest, signer, contents, totalBytes } = await readAll(good, productionTrust, size);
      expect(manifest).toEqual(fixtureManifest());
      expect(signer).toMatchObject({ name: "release 11", epoch: 1 });
      expect(contents).toEqual(parts);
      expect(totalBytes).toBe(good.length);
    },
  );

  test("from a file: inspected, verified, unpacked in order", async () => {
    const path = inFile(good);
    let advanced = 0;
    const options = { advance: (bytes: number) => (advanced += bytes) };
    expect((await inspectBundle(path, productionTrust)).manifest.version).toBe("2026.12.0");
    await verifyBundle(path, productionTrust, productionNode, options);
    expect(advanced).toBe(partBytes);
    const seen: string[] = [];
    await unpackBundle(path, productionTrust, productionNode, async ({ name, pieces }) => {
      seen.push(name);
      for await (const piece of pieces) expect(piece.equals(parts[name])).toBe(true);
    });
    expect(seen).toEqual([...partNames]);
  });

  test("what a caller skips or leaves half-read is checked all the same", async () => {
    const damaged = Buffer.from(good);
    damaged[partsAt + parts.root.length - 1] ^= 1;
    for (const take of [0, 1]) {
      const reader = await readBundle(sourceOf(damaged, 8).pieces, productionTrust);
      await expect(async () => {
        for await (const part of reader.parts()) {
          let left = take;
          for await (const _ of part.pieces) if (--left <= 0) break;
        }
      }).rejects.toMatchObject({ problem: "part-wrong" });
    }
  });

  test("written by the writer, it is the fixture's bytes", () => {
    const files = Object.fromEntries(
      partNames.map((name) => {
        writeFileSync(join(folder, name), parts[name]);
        return [name, join(folder, name)];
      }),
    ) as Record<(typeof partNames)[number], string>;
    expect(describeParts(files)).toEqual(fixtureManifest().parts);
    const { certificate, key } = fixture.firstKey;
    const path = join(folder, "out.kbundle");
    const signing = { certificate, privateKey: key, revocations: [] };
    expect(writeBundle(path, fixtureManifest(), files, signing)).toBe(good.length);
    expect(readdirSync(folder)).not.toContain("out.kbundle.new");
    // A part that changed under the writer leaves nothing behind.
    truncateSync(files.root, 3);
    rmSync(path);
    expect(() => writeBundle(path, fixtureManifest(), files, signing)).toThrow("changed while");
    expect(existsSync(path)).toBe(false);
    expect(existsSync(`${path}.new`)).toBe(false);
  });
});

interface Bad {
  readonly problem: BundleProblem;
  readonly bytes: Buffer;
  readonly trust?: Trust;
  readonly node?: Partial<BundleTarget>;
}

const text = encodeManifest(fixtureManifest());
const { certificate, key } = fixture.firstKey;
const block = signManifest(text, certificate, key);
const blockWith = (change: (block: SignatureBlock) => void) => {
  const value = JSON.parse(block.toString());
  change(value);
  return Buffer.from(canonicalJson(value));
};
const changedManifest = (change: Parameters<typeof fixtureManifest>[1]) =>
  fixtureBundle({ manifest: fixtureManifest(parts, change) });
const flipped = (at: number) => {
  const bytes = Buffer.from(good);
  bytes[at] ^= 1;
  return bytes;
};
const revoking = fixture.fixtureRevocation(fixture.releaseRoot, [certificate.body.keyId]);

const badBundles: Record<string, Bad> = {
  "an empty file": { problem: "not-a-bundle", bytes: Buffer.alloc(0) },
  "an ISO": { problem: "not-a-bundle", bytes: Buffer.alloc(100_000, "CD001") },
  "cut in the header": { problem: "truncated", bytes: good.subarray(0, 31) },
  "cut in the manifest": { problem: "truncated", bytes: good.subarray(0, headerBytes + 10) },
  "cut in the signature": {
    problem: "truncated",
    bytes: good.subarray(0, headerBytes + manifestBytes + 1),
  },
  "cut before the parts": { problem: "truncated", bytes: good.subarray(0, partsAt) },
  "cut in a part": { problem: "truncated", bytes: good.subarray(0, partsAt + 100) },
  "cut by one byte": { problem: "truncated", bytes: good.subarray(0, good.length - 1) },
  "one byte more": { problem: "trailing-bytes", bytes: Buffer.concat([good, Buffer.alloc(1)]) },
  "two bundles in a row": { problem: "trailing-bytes", bytes: Buffer.concat([good, good]) },
  unsigned: { problem: "unsigned", bytes: fixtureBundle({ block: Buffer.alloc(0) }) },
  "a signature block that is no JSON": {
    problem: "malformed",
    bytes: fixtureBundle({ block: Buffer.from("signed, trust me") }),
  },
  "a signature block of nothing but brackets": {
    problem: "malformed",
    bytes: fixtureBundle({ block: Buffer.alloc(100_000, "[") }),
  },
  "a changed manifest under the old signature": {
    problem: "signature-wrong",
    bytes: fixtureBundle({ manifest: fixtureManifest(parts, { notes: "better" }), block }),
  },
  "a signature that was made for another purpose": {
    problem: "signature-wrong",
    bytes: fixtureBundle({
      block: blockWith((value) =>
        Object.assign(value, { manifestSignature: signAs("revocation", text, key) }),
      ),
    }),
  },
  "signed by a strange root's key": {
    problem: "key-unknown",
    bytes: fixtureBundle({ signer: fixture.strangeKey }),
  },
  "a strange key under a known root's name": {
    problem: "key-unknown",
    bytes: fixtureBundle({
      signer: fixture.fixtureReleaseKey(
        { key: fixture.strangeRoot.key, root: fixture.releaseRoot.root },
        31,
      ),
    }),
  },
  "a certificate whose epoch was raised": {
    problem: "key-unknown",
    bytes: fixtureBundle({
      block: blockWith(({ certificate: { body } }) => {
        body.epoch = 9;
      }),
    }),
  },
  "a certificate with another key put in": {
    problem: "key-unknown",
    bytes: fixtureBundle({
      block: blockWith(({ certificate: { body } }) => {
        body.publicKey = fixture.strangeKey.certificate.body.publicKey;
      }),
    }),
  },
  "signed by the release key's own self, as if a root": {
    problem: "key-unknown",
    bytes: fixtureBundle({
      signer: fixture.fixtureReleaseKey(
        { key, root: { ...fixture.releaseRoot.root, keyId: certificate.body.keyId } },
        41,
      ),
    }),
  },
  "signed by a key that has been replaced": {
    problem: "key-replaced",
    bytes: good,
    trust: { ...productionTrust, roots: [{ ...fixture.releaseRoot.root, minimumEpoch: 2 }] },
  },
  "signed by a revoked key": {
    problem: "key-revoked",
    bytes: good,
    trust: { ...productionTrust, revokedKeyIds: [certificate.body.keyId] },
  },
  "a bundle that carries its own key's revocation": {
    problem: "key-revoked",
    bytes: fixtureBundle({ revocations: [revoking] }),
  },
  "for another architecture": {
    problem: "hardware",
    bytes: changedManifest({ architecture: "arm64" }),
  },
  "for other machines": { problem: "hardware", bytes: changedManifest({ hardware: ["rack-9"] }) },
  "older than what runs": { problem: "older", bytes: changedManifest({ version: "2026.10.0" }) },
  "older, though it worked before the last one": {
    problem: "older",
    bytes: changedManifest({ version: "2026.9.1" }),
  },
  "what runs already": {
    problem: "already-running",
    bytes: changedManifest({ version: "2026.11.0" }),
  },
  "too far ahead": {
    problem: "needs-newer-first",
    bytes: changedManifest({ upgradesFrom: "2026.11.1" }),
  },
  "one that can't read the store": {
    problem: "data-format",
    bytes: good,
    node: { dataFormats: { "chunk-store": 2 } },
  },
  "one that knows nothing of a format here": {
    problem: "data-format",
    bytes: good,
    node: { dataFormats: { constructor: 0 } },
  },
  "a development bundle": {
    problem: "development",
    bytes: fixtureBundle({
      manifest: fixtureManifest(parts, { development: true }),
      signer: fixture.developmentKey,
    }),
    trust: fixture.developmentTrust,
  },
  "a development bundle, on a node that knows no such root": {
    problem: "key-unknown",
    bytes: fixtureBundle({
      manifest: fixtureManifest(parts, { development: true }),
      signer: fixture.developmentKey,
    }),
  },
  "a development key's bundle that calls itself a release": {
    problem: "key-unknown",
    bytes: fixtureBundle({ signer: fixture.developmentKey }),
    trust: fixture.developmentTrust,
  },
  "a signed manifest that is not canonical": {
    problem: "malformed",
    bytes: fixtureBundle({ manifestText: Buffer.from(`${text} `) }),
  },
  "a signed manifest of another format": {
    problem: "malformed",
    bytes: fixtureBundle({
      manifestText: Buffer.from(text.toString().replace('"formatVersion":1', '"formatVersion":2')),
    }),
  },
  ...Object.fromEntries(
    partNames.map((name): [string, Bad] => {
      const before = partNames.slice(0, partNames.indexOf(name));
      const at = before.reduce((sum, each) => sum + parts[each].length, partsAt);
      return [`a flipped bit in ${name}`, { problem: "part-wrong", bytes: flipped(at) }];
    }),
  ),
};

describe("bad bundles", () => {
  test.each(Object.entries(badBundles))(
    "%s: refused, and nothing is written",
    async (_name, { problem, bytes, trust = productionTrust, node }) => {
      const target = { ...productionNode, ...node };
      const path = inFile(bytes);
      const slot = join(folder, "slot");
      mkdirSync(slot);
      const error = await unpackBundle(path, trust, target, async ({ name, pieces }) => {
        for await (const piece of pieces) writeFileSync(join(slot, name), piece);
      }).catch((reason: unknown) => reason);
      expect(isBundleError(error, problem), String(error)).toBe(true);
      if (!isKeelsonError(error)) return;
      expect(error.message).toMatch(/^[A-Z0-9].*\.$/);
      expect(error.remedy ?? "").toMatch(/^[A-Z0-9].*\.$/);
      expect(readdirSync(slot)).toEqual([]);
      // verifyBundle says the same.
      await expect(verifyBundle(path, trust, target)).rejects.toMatchObject({ problem });
    },
  );

  test("the table has every problem but the header's own", () => {
    const tested = new Set(Object.values(badBundles).map(({ problem }) => problem));
    const all: Record<BundleProblem, true> = {
      ...{ "not-a-bundle": true, "format-unknown": true, truncated: true, "trailing-bytes": true },
      ...{ malformed: true, unsigned: true, "signature-wrong": true, "key-unknown": true },
      ...{ "key-replaced": true, "key-revoked": true, "part-wrong": true, hardware: true },
      ...{ older: true, "already-running": true, "needs-newer-first": true },
      ...{ "data-format": true, development: true },
    };
    const missing = Object.keys(all).filter((name) => !tested.has(name as BundleProblem));
    expect(missing).toEqual(["format-unknown"]);
  });

  test("nothing past the signature is read of one that isn't signed right", async () => {
    for (const bytes of [
      badBundles.unsigned.bytes,
      badBundles["signed by a strange root's key"].bytes,
      badBundles["a changed manifest under the old signature"].bytes,
    ]) {
      const { taken, pieces } = sourceOf(bytes, 1);
      await expect(readBundle(pieces, productionTrust)).rejects.toThrow();
      expect(taken.bytes).toBeLessThanOrEqual(bytes.length - partBytes);
    }
  });

  test("a header that promises 4 GiB is refused by its 32 bytes", async () => {
    const bytes = Buffer.from(good);
    bytes.writeUInt32LE(0xffff_ffff, 12);
    const { taken, pieces } = sourceOf(bytes, 1);
    await expect(readBundle(pieces, productionTrust)).rejects.toMatchObject({
      problem: "malformed",
    });
    expect(taken.bytes).toBe(headerBytes);
  });

  test("a file that changes between the two readings is refused", async () => {
    // Larger than one piece: the rest is read from the file when its turn comes.
    const large = { ...parts, root: Buffer.alloc(3 << 20, 7) };
    const bytes = fixtureBundle({ parts: large });
    const path = inFile(bytes);
    let parted = 0;
    const damage = async () => {
      if (parted++ > 0) return;
      const damaged = Buffer.from(bytes);
      damaged[damaged.length - 1] ^= 1;
      writeFileSync(path, damaged);
    };
    await expect(unpackBundle(path, productionTrust, productionNode, damage)).rejects.toMatchObject(
      { problem: "part-wrong" },
    );
  });

  test("a path that is none, and a directory, are said by name", async () => {
    await expect(verifyBundle(join(folder, "none"), productionTrust)).rejects.toThrow(/none can't/);
    await expect(verifyBundle(folder, productionTrust)).rejects.toThrow(/is not a file/);
  });

  test("a source that fails is passed on, a reading can be ended", async () => {
    async function* pulled() {
      yield good.subarray(0, partsAt + 50);
      throw new Error("the stick was pulled");
    }
    const reader = await readBundle(pulled(), productionTrust);
    await expect(async () => {
      for await (const _ of reader.parts());
    }).rejects.toThrow("the stick was pulled");
    const signal = AbortSignal.abort(new Error("cancelled"));
    await expect(
      verifyBundle(inFile(good), productionTrust, productionNode, { signal }),
    ).rejects.toThrow("cancelled");
  });
});

describe("versions that may come", () => {
  test("the slot's that last worked, though it is older", async () => {
    const bytes = changedManifest({ version: "2026.9.2", upgradesFrom: "2026.12.0" });
    await verifyBundle(inFile(bytes), productionTrust, productionNode);
  });

  test("a release on a development node", async () => {
    const node = { ...productionNode, developmentNode: true };
    await verifyBundle(inFile(good), fixture.developmentTrust, node);
  });
});

describe("rotation", () => {
  const second = fixtureBundle({ signer: fixture.secondKey });

  test("after a bundle of the new key, the old key stops working, on that node only", async () => {
    let state = emptyTrustState;
    const take = async (bytes: Buffer) => {
      const trust = trustOf(productionTrust, state);
      const { signer } = await verifyBundle(inFile(bytes), trust, productionNode);
      state = JSON.parse(JSON.stringify(signer.trustState));
    };
    await take(good);
    await take(good);
    await take(second);
    await expect(take(good)).rejects.toMatchObject({ problem: "key-replaced" });
    await take(second);
    await expect(readAll(good)).resolves.toBeDefined();
  });

  test("an epoch counts for its own root", async () => {
    const bytes = fixtureBundle({
      manifest: fixtureManifest(parts, { development: true }),
      signer: fixture.fixtureReleaseKey(fixture.developmentRoot, 21, 7),
    });
    const node = { ...productionNode, developmentNode: true };
    const { signer } = await verifyBundle(inFile(bytes), fixture.developmentTrust, node);
    const trust = trustOf(fixture.developmentTrust, signer.trustState);
    await verifyBundle(inFile(good), trust, node);
  });

  test("a bundle brings revocations; only a known root's count, and they stay", async () => {
    const bundle = fixtureBundle({
      signer: fixture.secondKey,
      revocations: [
        revoking,
        fixture.fixtureRevocation(fixture.strangeRoot, [fixture.secondKey.certificate.body.keyId]),
      ],
    });
    const { signer } = await verifyBundle(inFile(bundle), productionTrust, productionNode);
    expect(signer.trustState.revokedKeyIds).toEqual([certificate.body.keyId]);
    const same = fixture.fixtureReleaseKey(fixture.releaseRoot, 11, 5);
    const trust = trustOf(productionTrust, signer.trustState);
    await expect(
      verifyBundle(inFile(fixtureBundle({ signer: same })), trust, productionNode),
    ).rejects.toMatchObject({ problem: "key-revoked" });
  });
});

// Thousands of bundles: three seconds, on a machine that has nothing else to do.
describe("damage of any kind", { timeout: 180_000 }, () => {
  test("no byte of a bundle can be changed unnoticed", async () => {
    for (let at = 0; at < good.length; at++) {
      const error = await readAll(flipped(at)).catch((reason: unknown) => reason);
      expect(isBundleError(error), `byte ${at}: ${error}`).toBe(true);
    }
  });

  test("mutations give a BundleError and no other, and take no byte too many", async () => {
    const mutation = fc.record({
      at: fc.nat(good.length),
      remove: fc.oneof(fc.constant(0), fc.nat(200), fc.nat(good.length)),
      insert: fc.oneof(fc.uint8Array({ maxLength: 64 }), fc.constant(good.subarray(0, 64))),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(mutation, { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 5000 }),
        async (mutations, pieceBytes) => {
          let bytes: Buffer = good;
          for (const { at, remove, insert } of mutations) {
            bytes = Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + remove)]);
          }
          const { taken, pieces } = sourceOf(bytes, pieceBytes);
          try {
            const reader = await readBundle(pieces, productionTrust, productionNode);
            for await (const part of reader.parts()) for await (const _ of part.pieces);
            expect(bytes.equals(good)).toBe(true);
          } catch (error) {
            expect(isBundleError(error), String(error)).toBe(true);
          }
          expect(taken.bytes).toBeLessThanOrEqual(good.length + pieceBytes);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("signed nonsense gives a BundleError too", async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), fc.jsonValue(), async (value, instead) => {
        const manifest = { ...fixtureManifest(), [partOf(value)]: instead };
        const manifestText = Buffer.from(JSON.stringify(manifest));
        const bytes = fixtureBundle({ manifestText });
        const error = await readAll(bytes).catch((reason: unknown) => reason);
        if (isKeelsonError(error)) return;
        expect(manifestText.equals(text)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  test("half a gigabyte of root takes a few megabytes of memory", async () => {
    const rootBytes = 512 << 20;
    const piece = Buffer.alloc(1 << 20);
    const manifest = fixtureManifest();
    manifest.parts[0] = { ...manifest.parts[0], sizeBytes: rootBytes };
    const head = fixtureBundle({ manifest }).subarray(0, -partBytes);
    let peak = 0;
    async function* endless() {
      yield head;
      for (let sent = 0; sent < rootBytes; sent += piece.length) {
        peak = Math.max(peak, process.memoryUsage().arrayBuffers);
        yield piece;
      }
    }
    const before = process.memoryUsage().arrayBuffers;
    const reader = await readBundle(endless(), productionTrust);
    await expect(async () => {
      for await (const part of reader.parts()) for await (const _ of part.pieces);
    }).rejects.toMatchObject({ problem: "part-wrong" });
    expect(peak - before).toBeLessThan(16 << 20);
  });
});

/** Some member's name. */
function partOf(value: unknown): string {
  const names = Object.keys(fixtureManifest());
  return names[JSON.stringify(value).length % names.length];
}
