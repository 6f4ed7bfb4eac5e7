import { expect, test } from "vitest";
import { probeBytes, probeStore } from "./probe.ts";

const pool = "5f0c1de2-0b7a-4a51-9c57-2f6d1f7a9e10";

function superblock(at: number, damage = 0): Uint8Array {
  const bytes = new Uint8Array(probeBytes);
  bytes.set(new TextEncoder().encode("KEELSON-STORE-SB"), at);
  bytes.set(Buffer.from(pool.replaceAll("-", ""), "hex"), at + 32);
  bytes[at + 200] ^= damage;
  return bytes;
}

test.each([
  ["first superblock", superblock(0)],
  ["second superblock, the first lost", superblock(4096)],
  ["damaged elsewhere", superblock(0, 0xff)],
])("a store is recognised: %s", (_, bytes) => {
  expect(probeStore(bytes)?.poolId).toBe(pool);
});

test.each([
  ["zeroes", new Uint8Array(probeBytes)],
  ["nothing read", new Uint8Array(0)],
  ["magic elsewhere", superblock(512)],
  ["cut off", superblock(0).subarray(0, 40)],
])("no store: %s", (_, bytes) => {
  expect(probeStore(bytes)).toBeUndefined();
});
