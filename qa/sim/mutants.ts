/**
 * Planted bugs, each a patch of the store's source: a simulation that does not find them says
 * nothing about those that nobody planted. They are applied one by one to a copy of the tree.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

const root = resolve(import.meta.dirname, "../..");
const engine = "services/chunk-store/engine";

export interface Mutant {
  readonly name: string;
  /** In the store's engine, or a path from the root. */
  readonly file: string;
  /** Stands there once. */
  readonly from: string;
  readonly to: string;
}

export const mutants: readonly Mutant[] = [
  // ---- log and flush ----
  {
    name: "a freed block is reused at once",
    file: "apply.ts",
    from: "if (replaying) store.allocator.release(pointer);",
    to: "if (sequence >= 0) store.allocator.release(pointer);",
  },
  {
    name: "a freed block is reused when its freeing entry is durable, not yet stated so",
    file: "store.ts",
    from: "this.allocator.releasePending(this.log.statedDurable);",
    to: "this.allocator.releasePending(this.log.durable);",
  },
  {
    name: "a write is acknowledged without its log record",
    file: "store.ts",
    from: "    if (!this.appendRecord()) {",
    to: "    if (this.failure !== null) {",
  },
  {
    name: "a flush does not flush the device",
    file: "store.ts",
    from: "    this.disk.flush((ok) => {",
    to: "    ((done: (ok: boolean) => void) => queueMicrotask(() => done(true)))((ok) => {",
  },
  {
    name: "replay takes unflushed records without a look at their data",
    file: "replay.ts",
    from: "if (!verify(store, reader, records[i])) {",
    to: "if (records[i] === undefined) {",
  },
  {
    name: "a mount allocates before its record states the log durable",
    file: "mount.ts",
    from: "store.appendRecord() && store.flushSync();",
    to: "store.appendRecord();",
  },
  {
    name: "the older superblock is taken",
    file: "mount.ts",
    from: "b.sequence > a.sequence ? b : a",
    to: "b.sequence < a.sequence ? b : a",
  },
  {
    name: "a checkpoint's superblock is written before its pages are durable",
    file: "checkpoint.ts",
    from: "if (!store.flushSync() || !writeSuperblock(store, checkpoint, clean)) return;",
    to: "if (!writeSuperblock(store, checkpoint, clean)) return;",
  },
  {
    name: "a checkpoint frees the log before its superblock is durable",
    file: "checkpoint.ts",
    from: "    if (!writeSuperblock(store, checkpoint, false)) return;\n",
    to: "    if (!writeSuperblock(store, checkpoint, false)) return;\n    finish(store, checkpoint);\n",
  },
  {
    name: "a staged block counts as used in a checkpoint",
    file: "checkpoint-image.ts",
    from: "    store.stagedPointers.subarray(0, store.stagedCount),\n",
    to: "",
  },
  {
    name: "a page changes before the checkpoint under way has it",
    file: "page-cache.ts",
    from: "    if (this.index.due[record] === 1) this.onDue(record, frame);\n",
    to: "",
  },
  {
    name: "replay frees again what a checkpoint took of what was freed since it began",
    file: "mount.ts",
    from: "  if (records > 0) takePages(store);\n",
    to: "",
  },
  {
    name: "a checkpoint leads to the page that a record had before",
    file: "checkpoint-image.ts",
    from: "page.setUint32((record % indexRecordsPerPage) * indexRecordBytes + slotOffset, slot, true);",
    to: "if (before === 0) page.setUint32((record % indexRecordsPerPage) * indexRecordBytes + slotOffset, slot, true);",
  },
  {
    name: "changes to a page that leaves memory are lost",
    file: "page-cache.ts",
    from: "      if (this.dirty[frame] === 1) this.keepAsDeltas(record, frame);\n",
    to: "      if (this.dirty[frame] === 1) this.markClean(frame);\n",
  },
  {
    name: "a page kept as deltas is left out of a checkpoint",
    file: "page-cache.ts",
    from: "return frame >= 0 ? this.dirty[frame] === 1 : this.index.deltas[record] >= 0;",
    to: "return frame >= 0 && this.dirty[frame] === 1;",
  },
  {
    name: "a record that an earlier mount dropped is taken after a checkpoint",
    file: "replay.ts",
    from: "let generation = log.mountGeneration;",
    to: "let generation = 0;",
  },
  // ---- groups ----
  {
    name: "what a former writer left on one member only is not given to the others",
    file: "lib/volume/group-volume.ts",
    from: "        this.copyAll(round, ahead, behind, lacking, at + 1);\n",
    to: "        behind.version = ahead.version;\n        this.copyAll(round, ahead, behind, []);\n",
  },
  {
    name: "a part of an operation stays on the one member that has it",
    file: "lib/volume/group-volume.ts",
    from: "if (torn === undefined || this.live.length === 1) this.flushAll",
    to: "if (torn !== null) this.flushAll",
  },
  {
    name: "a member that lost power gets only what was not acknowledged",
    file: "lib/volume/group-volume.ts",
    from: "      if (isAfter(change.version, version)) this.sendChange(member, change);\n",
    to: "      if ((change.waiting & member.bit) !== 0) this.sendChange(member, change);\n",
  },
  {
    name: "a change is acknowledged before the member that lacks it is recorded as stale",
    file: "lib/volume/group-volume.ts",
    from: "(bits, { bit, stale }) => (stale ? bits : bits | bit)",
    to: "(bits, { bit, givenUp }) => (givenUp ? bits : bits | bit)",
  },
  {
    name: "a flush of the group is one of its first member",
    file: "lib/volume/group-volume.ts",
    from: "const flush: Flush = { covers, waiting: this.owedBits, answer };",
    to: "const flush: Flush = { covers, waiting: 1, answer };",
  },
  {
    name: "the store believes a writer that was replaced",
    file: "transfer.ts",
    from: "batch.writer[row] < lineage.writer.generation",
    to: "batch.writer[row] < 0",
  },
  {
    name: "a checkpoint forgets what the group did since its last flush",
    file: "checkpoint-image.ts",
    from: "operations: young ? encodeOperations(lineages) : [],",
    to: "operations: [],",
  },
  // ---- snapshots and clones ----
  {
    name: "what a snapshot kept is no longer counted when the next one is half dropped",
    file: "apply.ts",
    from: "    if (cell.blocks === 0 && cell.records === 0) cells.delete(cell);\n",
    to: "    if (cell.death === next) cells.delete(cell);\n",
  },
  {
    name: "the epoch barrier is skipped: writes after a snapshot have its epoch",
    file: "apply.ts",
    from: "  lineage.epoch = words[at + 3];\n",
    to: "",
  },
  {
    name: "the first write after a snapshot changes the snapshot's record",
    file: "apply.ts",
    from: "if (index.epoch[record] > lineage.barrier) return cache.load(record);",
    to: "if (index.epoch[record] >= lineage.barrier) return cache.load(record);",
  },
  {
    name: "a block that a snapshot sees is freed when it is written over",
    file: "apply.ts",
    from: "    birth <= lineage.barrier ||",
    to: "    birth < lineage.barrier ||",
  },
  {
    name: "the dead list is lost: what a snapshot kept is not counted",
    file: "apply.ts",
    from: "    lineage.cells.at(born.birth, death).blocks++;\n",
    to: "    lineage.cells.at(born.birth, death);\n",
  },
  {
    name: "a block of a snapshot under deletion is freed twice",
    file: "apply.ts",
    from: "return other < 0 || cache.words[other * mapWords + block] === pointer;",
    to: "return other < 0;",
  },
  {
    name: "deleting a snapshot frees what an earlier one sees",
    file: "apply.ts",
    from: "    if (words[frame * mapWords + 2 * chunkBlocks + block] <= before) continue;\n",
    to: "",
  },
  {
    name: "deleting a snapshot frees what the next state has",
    file: "apply.ts",
    from: "    if (pointer === words[newerFrame * mapWords + block]) continue;\n",
    to: "",
  },
  {
    name: "a clone frees inherited blocks: its snapshot's users are not counted",
    file: "lineages.ts",
    from: "      snapshot.children += by;\n",
    to: "",
  },
  {
    name: "deleting a volume frees what its snapshots see",
    file: "apply.ts",
    from: "      if (older >= 0 && pointer === words[olderFrame * mapWords + block]) continue;\n",
    to: "",
  },
  {
    name: "snapshots of one instant are made one after the other",
    file: "store.ts",
    from: "      this.addIdentity(lineage.number, uuid);\n    }\n    this.commitControl();\n",
    to: "      this.addIdentity(lineage.number, uuid);\n      this.commitControl();\n    }\n",
  },
  {
    name: "a discard in a clone lets the origin's block through",
    file: "transfer.ts",
    from: "const flags = (inherits ? EntryFlag.hole : 0)",
    to: "const flags = (inherits && count < 0 ? EntryFlag.hole : 0)",
  },
  {
    name: "a discarded chunk goes as a whole, though a snapshot has it",
    file: "transfer.ts",
    from: "return index.older[record] < 0 && index.epoch[record] > lineage.barrier;",
    to: "return index.older[record] < 0 && lineage.barrier >= 0;",
  },
  {
    name: "a clone reads its origin as it is now",
    file: "resolve.ts",
    from: "epoch = line.forkEpoch, line = line.parent",
    to: "line = line.parent",
  },
  {
    name: "differences leave out what a clone's origin changed",
    file: "differences.ts",
    from: "    if (isLast) return Uint32Array.from(chunks).sort();\n",
    to: "    if (isLast || epoch > 0) return Uint32Array.from(chunks).sort();\n",
  },
  {
    name: "a reverted volume's former state is never freed",
    file: "store.ts",
    from: "    this.log.add(EntryType.volumeDelete, 0, 0, lineage.number, 0, 0, 0, 0, 0, 0);\n",
    to: "",
  },
];

/** What a mutant needs of the tree to run. */
const copied = ["package.json", "lib", "native", "qa/sim", "services/chunk-store"];
const linked = ["node_modules", "build"];

/** Where the seed stands that found it; undefined if none of `seeds` did. */
export interface Hunt {
  readonly mutant: Mutant;
  readonly seeds: number | undefined;
  /** Of the shrunk run. */
  readonly steps?: readonly number[];
}

/** Runs the mutant in a process of its own, seed after seed from `first`, until one fails. */
export async function hunt(
  mutant: Mutant,
  options: {
    readonly first: number;
    readonly seeds: number;
    readonly operations: number;
    /** Also shrinks the run that found it. */
    readonly shrink?: boolean;
  },
): Promise<Hunt> {
  const folder = mkdtempSync(join(tmpdir(), "keelson-mutant-"));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  let child: ChildProcess | undefined;
  const end = () => {
    child?.kill("SIGKILL");
    remove();
  };
  process.once("exit", end);
  try {
    for (const path of copied) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      cpSync(join(root, path), join(folder, path), { recursive: true });
    }
    for (const path of linked) symlinkSync(join(root, path), join(folder, path));
    plant(folder, mutant);
    child = spawn(
      process.execPath,
      [
        ...["--disable-warning=ExperimentalWarning", join(folder, "qa/sim/main.ts")],
        ...["--seed", String(options.first), "--seeds", String(options.seeds)],
        ...["--ops", String(options.operations), "--lanes", "1", "--until-failure", "--json"],
        ...(options.shrink === true ? [] : ["--no-shrink"]),
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    let output = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    await once(child, "close");
    const { failures, shrunk } = JSON.parse(output) as {
      failures: { seed: number }[];
      shrunk: { steps: number[] } | null;
    };
    const found = failures[0]?.seed;
    return {
      mutant,
      seeds: found === undefined ? undefined : found - options.first + 1,
      ...(shrunk === null ? {} : { steps: shrunk.steps }),
    };
  } finally {
    process.off("exit", end);
    remove();
  }
}

/** INTERNAL if the source has changed so that the patch no longer applies, once. */
export function plant(folder: string, { name, file, from, to }: Mutant): void {
  const path = join(folder, file.includes("/") ? file : join(engine, file));
  const source = readFileSync(path, "utf8");
  const parts = source.split(from);
  if (parts.length !== 2) {
    throw new KeelsonError("INTERNAL", `The planted bug '${name}' does not fit ${file} any more.`);
  }
  writeFileSync(path, parts.join(to));
}
