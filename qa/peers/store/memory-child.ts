/** Child of `memory`: writes a store of some size at random, and says what its map keeps in memory. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { blockBytes } from "#services/chunk-store/limits.ts";
import { Engine } from "./engine.ts";
import type { MapMemory } from "./memory.ts";
import { collectGarbage, loadPattern, scaledDisk, shuffled, writeBlocks } from "./scaled.ts";

const windowBits = 18;
const windowBlocks = 2 ** windowBits;
const depth = 256;
/** Before what is measured begins: code is compiled, the heap has its size. */
const warmUpBytes = 2 ** 30;

const [directory, size] = process.argv.slice(2);

/** Each block once: at random within a GiB, one GiB after the other. */
function place(i: number): number {
  const within = shuffled(i % windowBlocks, windowBits);
  return (i - (i % windowBlocks) + within) * blockBytes;
}

function written(name: string, volumeBytes: number) {
  const disk = scaledDisk(
    join(directory, name),
    Math.ceil(volumeBytes / 0.75 / blockBytes) * blockBytes,
  );
  const engine = Engine.create({ file: disk.file, disk }, volumeBytes);
  loadPattern(engine, disk);
  writeBlocks(engine, depth, volumeBytes / blockBytes, place, 64);
  return { disk, engine };
}

function residentBytes(): number {
  collectGarbage();
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))![1]) * 1024;
}

/** Each buffer once that `root` leads to through properties, arrays, maps and sets. */
function buffersOf(root: object, without: readonly object[]): number {
  const seen = new Set<object>(without);
  const open: unknown[] = [root];
  let bytes = 0;
  while (open.length > 0) {
    let next = open.pop();
    if (ArrayBuffer.isView(next)) next = next.buffer;
    if (typeof next !== "object" || next === null || seen.has(next)) continue;
    seen.add(next);
    if (next instanceof ArrayBuffer || next instanceof SharedArrayBuffer) bytes += next.byteLength;
    else {
      const inside =
        next instanceof Map || next instanceof Set ? next.values() : Object.values(next);
      for (const value of inside) if (typeof value === "object") open.push(value);
    }
  }
  return bytes;
}

function warmUp(): void {
  const { disk, engine } = written("warm", warmUpBytes);
  engine.drop();
  disk.end();
}

warmUp();
const before = residentBytes();
const { disk, engine } = written("store", Number(size));
const answer: MapMemory = {
  residentBytes: residentBytes() - before - disk.bitsBytes,
  typedArrayBytes: buffersOf(engine.store, [disk, disk.file]),
};
engine.drop();
disk.end();
console.log(JSON.stringify(answer));
