/** `memory`: what the map of 1 TiB of randomly written data keeps in memory. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import { alone, type Comparison, type ComparisonOptions, type Figure } from "./comparison.ts";
import { defaultMemoryBytes } from "./engine.ts";

const tebibyte = 2 ** 40;
const gibibyte = 2 ** 30;
/**
 * Powers of two, as 1 TiB is one: tables that grow by doubling are as full as they would be then. And
 * so large that a page cache of the default size is full: what is past it would grow the line.
 */
const sizesBytes = [64 * gibibyte, 128 * gibibyte] as const;

/** What `memory-child.ts` says of a store with so much data. */
export interface MapMemory {
  /** Buffers that the store's object leads to, its device's left out. */
  readonly typedArrayBytes: number;
  /** Resident memory of the process, less what it was before there was a store. */
  readonly residentBytes: number;
}

export const memory: Comparison = {
  name: "memory",
  needBytes: () => 3 * gibibyte,
  method: [
    `A volume written once wholly, 4 KiB blocks at random within each GiB, on a device of 4/3 its size, ${formatSize(defaultMemoryBytes)} for map pages (chunk-store's default); each size in a process of its own.`,
    `Scaled: ${sizesBytes.map(formatSize).join(" and ")} are written, 1 TiB follows on the line through both. A block of the load's data is one bit in the benchmark's memory, taken off.`,
    "arrays: the buffers of all typed arrays that the store's object leads to. resident: VmRSS after a garbage collection, less before the store was made: with payload and heap. Measured once.",
  ],
  run: async (options) => measure(options),
};

function measure(options: ComparisonOptions): Figure[] {
  const [small, large] = sizesBytes.map((sizeBytes) => inChild(sizeBytes, options));
  const perTebibyte = (of: (memory: MapMemory) => number) => {
    const slope = (of(large) - of(small)) / (sizesBytes[1] - sizesBytes[0]);
    return [(of(large) + slope * (tebibyte - sizesBytes[1])) / gibibyte];
  };
  const bar = { atMost: 1 };
  return [
    alone(
      "arrays",
      "GiB/TiB",
      perTebibyte((each) => each.typedArrayBytes),
      bar,
    ),
    alone(
      "resident",
      "GiB/TiB",
      perTebibyte((each) => each.residentBytes),
      bar,
    ),
  ];
}

function inChild(sizeBytes: number, { directory, progress }: ComparisonOptions): MapMemory {
  const { status, stdout } = spawnSync(
    process.execPath,
    [
      "--disable-warning=ExperimentalWarning",
      ...[join(import.meta.dirname, "memory-child.ts"), directory, String(sizeBytes)],
    ],
    { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] },
  );
  if (status !== 0) throw new KeelsonError("UNAVAILABLE", `memory-child.ts ended with ${status}.`);
  const found = JSON.parse(stdout) as MapMemory;
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
  progress(
    `${formatSize(sizeBytes)} written: arrays ${mib(found.typedArrayBytes)} MiB, resident ${mib(found.residentBytes)} MiB`,
  );
  return found;
}
