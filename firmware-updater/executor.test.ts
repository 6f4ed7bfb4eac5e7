import { describe, expect, test } from "vitest";
import { KeelsonError } from "#lib/model/errors.ts";
import { Random } from "#lib/sim/random.ts";
import { BootLoaders } from "./boot-loaders.ts";
import { type BundleParts, Executor, type Machine } from "./executor.ts";
import type { GateVerdict } from "./gate.ts";
import { defaultGate, makePlan } from "./plan.ts";
import { recover } from "./recovery.ts";
import type { SlotName } from "./schema.ts";
import {
  bootSim,
  type SimRelease,
  simBootDisk,
  simInstalled,
  simLoader,
  simRelease,
  slotConfigOf,
} from "./sim-disk.ts";
import { PowerCut, type SimFiles } from "./sim-files.ts";
import { type SlotPartName, SlotWriter } from "./slot-writer.ts";
import { otherSlot, slotOfRoot, triesLeft } from "./slots.ts";
import { emptyState, type StateStore, type StoredState } from "./state.ts";

const v1 = simRelease("2026.11.0");
const v2 = simRelease("2026.12.0");
const releases = [v1, v2];
type Firmware = "uefi" | "bios";

/** Numbers from 0 to 1, by a seed. */
function randomFrom(seed: number): () => number {
  const random = new Random(seed);
  return () => random.next() / 2 ** 32;
}

/** One node over its restarts and power cuts. */
class SimNode {
  files: SimFiles;
  state: StoredState = {
    ...emptyState,
    slots: { a: { version: v1.version, rootHash: v1.rootHash, worked: true, failed: false } },
  };
  boots = 0;
  running: SimRelease = v1;
  trial: string | null = null;
  /** What /var holds: raised when a version that writes 2 is kept. */
  formats = 1;
  readonly firmware: Firmware;
  gate: (release: SimRelease) => GateVerdict | "hangs" = () => ({ ok: true });
  hung = false;
  corrupt = false;
  /** What the bundle has. */
  next: SimRelease = v2;

  constructor(firmware: Firmware) {
    this.firmware = firmware;
    this.files = simInstalled(v1);
  }

  executor(): Executor {
    const { files } = this;
    // Saving is atomic (lib/service/state-file.ts): a cut falls before or after it.
    const store: StateStore = {
      load: () => structuredClone(this.state),
      save: (state) => {
        if (files.operations++ >= files.cutAt) throw new PowerCut();
        this.state = structuredClone(state);
      },
    };
    const bundles: BundleParts = {
      verify: async () => {
        if (this.corrupt) throw new KeelsonError("FORMAT_CORRUPT", "The bundle is damaged.");
      },
      totalBytes: () => 20_000,
      dataFormats: () => ({ network: { oldest: 1, newest: 2 } }),
      loaders: async () => this.next.loaders,
      unpack: async (_id, use, signal) => {
        for (const [name, bytes] of Object.entries(v2.parts)) {
          signal.throwIfAborted();
          await use(name as SlotPartName, bytes.length, pieces(bytes));
        }
        const toSlot = otherSlot(slotOfRoot(files, simBootDisk(files), v1.rootHash)!);
        return { slotConfig: slotConfigOf(toSlot, v2), totalBytes: 20_000 };
      },
    };
    const machine: Machine = {
      bootId: String(this.boots),
      now: () => new Date(0).toISOString(),
      preflight: async () => ({ notes: [], baseline: { units: [], links: [] } }),
      syncDisks: () => {},
      setTrial: (trial) => {
        this.trial = trial?.rootHash ?? null;
      },
      raiseFormats: () => {
        this.formats = 2;
      },
      requestRestart: () => {},
      gate: async () => {
        const verdict = this.gate(this.running);
        if (verdict !== "hangs") return verdict;
        this.hung = true;
        files.cutAt = files.operations;
        throw new PowerCut();
      },
      inspectFailure: async () => ({ attempts: [], log: [], reason: "It did not start." }),
    };
    const writer = new SlotWriter(files, simBootDisk(files));
    const loaders = new BootLoaders(files, simBootDisk(files));
    return new Executor({ store, writer, loaders, bundles, machine, changed: () => {} });
  }

  /** Versions of the boot loaders for UEFI and BIOS; throws where one is not whole. */
  loaders(): string[] {
    return (["uefi", "bios"] as const).map((each) => simLoader(this.files, each, releases));
  }

  slot(): SlotName {
    return slotOfRoot(this.files, simBootDisk(this.files), this.running.rootHash)!;
  }

  async upgrade(): Promise<void> {
    const executor = this.executor();
    await swallowCut(
      executor.run(
        makePlan({
          id: "1",
          kind: "upgrade",
          from: { version: v1.version, rootHash: v1.rootHash },
          fromSlot: this.slot(),
          to: { version: v2.version, rootHash: v2.rootHash },
          bundleId: "bundle",
          gate: defaultGate,
          startedAt: "",
        }),
      ),
    );
  }

  async rollBack(to: SimRelease): Promise<void> {
    const { running } = this;
    await swallowCut(
      this.executor().run(
        makePlan({
          id: "2",
          kind: "rollback",
          from: { version: running.version, rootHash: running.rootHash },
          fromSlot: this.slot(),
          to: { version: to.version, rootHash: to.rootHash },
          bundleId: null,
          gate: defaultGate,
          startedAt: "",
        }),
      ),
    );
  }

  /** The machine starts and its updater takes up what it finds, until nothing restarts any more. */
  async restartUntilQuiet(limit = 12): Promise<void> {
    for (let count = 0; count < limit; count++) {
      this.boots++;
      this.running = bootSim(this.files, this.firmware, releases);
      const { plan } = this.state;
      const decision = recover(plan, {
        rootHash: this.running.rootHash,
        bootId: String(this.boots),
        triesLeft:
          plan === null
            ? undefined
            : triesLeft(
                this.files,
                simBootDisk(this.files),
                plan.toSlot,
                plan.to.rootHash,
                this.firmware,
              ),
      });
      const executor = this.executor();
      if (decision.kind === "none") return;
      if (decision.kind === "returned") return await executor.endReturned();
      else if (decision.kind === "fail") return executor.endFailed(decision.why);
      else {
        const outcome = await swallowCut(executor.resume(decision.step, String(this.boots)));
        if (outcome === "done") return;
        if (this.hung) {
          // Its watchdog restarts it.
          this.hung = false;
          this.files.cutAt = Number.POSITIVE_INFINITY;
        } else if (this.files.operations > this.files.cutAt) throw new PowerCut();
      }
    }
    throw new Error("It restarts for ever.");
  }

  async cut(seed: number): Promise<void> {
    this.files = this.files.afterCut(randomFrom(seed));
  }
}

async function swallowCut<Value>(run: Promise<Value>): Promise<Value | "cut"> {
  try {
    return await run;
  } catch (error) {
    if (error instanceof PowerCut) return "cut";
    throw error;
  }
}

async function* pieces(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 1024) yield bytes.subarray(at, at + 1024);
}

describe.each(["uefi", "bios"] as const)("an upgrade under %s", (firmware) => {
  test("leads to the new version, kept, with the old one as the way back", async () => {
    const node = new SimNode(firmware);
    await node.upgrade();
    await node.restartUntilQuiet();
    expect(node.running.version).toBe(v2.version);
    expect(node.state.plan?.state).toBe("done");
    expect(node.state.slots.b).toMatchObject({ worked: true, failed: false });
    expect(node.trial).toBeNull();
    expect(node.formats).toBe(2);
    expect(node.loaders()).toEqual([v2.version, v2.version]);
    expect(node.state.loaders).toBe(v2.version);
    expect(node.state.plan?.steps.at(-1)?.message).toBe(
      "Boot loaders of 2026.12.0 put in place: BOOTX64.EFI, loader.conf, grub.cfg, GRUB.",
    );
    expect(node.state.slots.b?.dataFormats).toEqual({ network: { oldest: 1, newest: 2 } });
    // It stays, however often it starts.
    for (let boot = 0; boot < 5; boot++) {
      expect(bootSim(node.files, firmware, releases).version).toBe(v2.version);
    }
  });

  test("cut at any operation always leaves one whole system, and ends as if there was no cut", async () => {
    const rehearsal = new SimNode(firmware);
    await rehearsal.upgrade();
    const count = rehearsal.files.operations;
    expect(count).toBeGreaterThan(60);
    for (let at = 0; at < count; at++) {
      for (const seed of [1, 2]) {
        const node = new SimNode(firmware);
        node.files.cutAt = at;
        await node.upgrade();
        const armed = node.state.plan?.steps.find(({ id }) => id === "arm")?.state ?? "waiting";
        await node.cut(at * 10 + seed);
        const first = bootSim(await copyOf(node), firmware, releases);
        if (armed === "waiting") expect(first.version, `cut ${at}`).toBe(v1.version);
        await node.restartUntilQuiet();
        expect(
          [node.running.version, node.state.plan?.state ?? "none"],
          `cut ${at} seed ${seed}`,
        ).toEqual(at === 0 ? [v1.version, "none"] : [v2.version, "done"]);
      }
    }
  });

  test("cut at any operation of the commit keeps the new version", async () => {
    const rehearsal = new SimNode(firmware);
    await rehearsal.upgrade();
    const before = rehearsal.files.operations;
    await rehearsal.restartUntilQuiet();
    const after = rehearsal.files.operations;
    for (let at = before; at < after; at++) {
      const node = new SimNode(firmware);
      node.files.cutAt = at;
      await node.upgrade();
      await swallowCut(node.restartUntilQuiet());
      await node.cut(at);
      await node.restartUntilQuiet();
      expect([node.running.version, node.state.plan?.state], `cut ${at}`).toEqual([
        v2.version,
        "done",
      ]);
      expect(node.formats).toBe(2);
      expect(node.loaders(), `cut ${at}`).toEqual([v2.version, v2.version]);
    }
  });

  test("boot loaders are cut at any operation, again and again, and always one of them is whole", async () => {
    const files = simInstalled(v1);
    await new BootLoaders(files, simBootDisk(files)).upgrade(v2.loaders);
    const count = files.operations;
    expect(count).toBeGreaterThan(20);
    for (let at = 0; at < count; at++) {
      for (let seed = 0; seed < 6; seed++) {
        let disk = simInstalled(v1);
        disk.cutAt = at;
        const random = randomFrom(at * 100 + seed);
        await swallowCut(new BootLoaders(disk, simBootDisk(disk)).upgrade(v2.loaders));
        disk = disk.afterCut(random);
        expect(bootSim(disk, firmware, releases).version, `cut ${at} seed ${seed}`).toBe(
          v1.version,
        );
        // It is taken up, and cut a second time.
        disk.cutAt = Math.floor(random() * count);
        await swallowCut(new BootLoaders(disk, simBootDisk(disk)).upgrade(v2.loaders));
        disk = disk.afterCut(random);
        bootSim(disk, firmware, releases);
        await new BootLoaders(disk, simBootDisk(disk)).upgrade(v2.loaders);
        expect(simLoader(disk, firmware, releases), `cut ${at} seed ${seed}`).toBe(v2.version);
      }
    }
  });

  test("boot loaders go to and fro between GRUB's halves, and are left alone when they are the same", async () => {
    const files = simInstalled(v1);
    const loaders = new BootLoaders(files, simBootDisk(files));
    const lba = () => Number(files.read("/dev/sim", 0x5c, 8).readBigUInt64LE());
    const seen = [lba()];
    for (const release of [v2, v1, v2]) {
      expect(await loaders.upgrade(release.loaders)).toHaveLength(4);
      expect(simLoader(files, firmware, releases)).toBe(release.version);
      seen.push(lba());
    }
    expect(seen).toEqual([64, 96, 64, 96]);
    files.operations = 0;
    expect(await loaders.upgrade(v2.loaders)).toEqual([]);
    expect(files.operations).toBe(0);
  });

  test("a new version that fails its gate is given up at once, and the reason is kept", async () => {
    const node = new SimNode(firmware);
    node.gate = () => ({ ok: false, why: "API: status 500" });
    await node.upgrade();
    await node.restartUntilQuiet();
    expect(node.running.version).toBe(v1.version);
    expect(node.boots).toBe(2);
    expect(node.state.plan?.state).toBe("returned");
    expect(node.state.lastFailure?.reason).toBe("API: status 500");
    expect(node.state.slots.b?.failed).toBe(true);
    expect(node.loaders(), "a trial touches no loader").toEqual([v1.version, v1.version]);
    expect(node.formats, "the old version still reads all of /var").toBe(1);
    expect(node.trial).toBeNull();
  });

  test("a new version that hangs is tried three times, then the old one is back", async () => {
    const node = new SimNode(firmware);
    node.gate = (release) => (release === v2 ? "hangs" : { ok: true });
    await node.upgrade();
    await node.restartUntilQuiet();
    expect(node.running.version).toBe(v1.version);
    expect(node.boots).toBe(4);
    expect(node.state.plan?.state).toBe("returned");
    expect(node.state.lastFailure?.reason).toBe("It did not start.");
  });

  test("cut while the old version puts away the failed one, it still ends well", async () => {
    const run = async (cutAt: number) => {
      const node = new SimNode(firmware);
      node.gate = () => ({ ok: false, why: "API: status 500" });
      node.files.cutAt = cutAt;
      await node.upgrade();
      await swallowCut(node.restartUntilQuiet());
      return node;
    };
    const whole = await run(Number.POSITIVE_INFINITY);
    const rehearsal = new SimNode(firmware);
    await rehearsal.upgrade();
    for (let at = rehearsal.files.operations; at < whole.files.operations; at++) {
      const node = await run(at);
      await node.cut(at);
      await node.restartUntilQuiet();
      expect([node.running.version, node.state.plan?.state], `cut ${at}`).toEqual([
        v1.version,
        "returned",
      ]);
    }
  });

  test("back to the old slot, and forward again, cut anywhere", async () => {
    const upgraded = async () => {
      const node = new SimNode(firmware);
      await node.upgrade();
      await node.restartUntilQuiet();
      node.files.operations = 0;
      return node;
    };
    const rehearsal = await upgraded();
    await rehearsal.rollBack(v1);
    await rehearsal.restartUntilQuiet();
    expect(rehearsal.running.version).toBe(v1.version);
    expect(bootSim(rehearsal.files, firmware, releases).version).toBe(v1.version);
    const count = rehearsal.files.operations;
    for (let at = 1; at < count; at++) {
      const node = await upgraded();
      node.files.cutAt = at;
      await node.rollBack(v1);
      if (node.files.operations <= at) await swallowCut(node.restartUntilQuiet());
      await node.cut(at);
      await node.restartUntilQuiet();
      expect([v1.version, v2.version], `cut ${at}`).toContain(node.running.version);
      expect(node.state.plan?.state, `cut ${at}`).toBe("done");
    }
    await rehearsal.rollBack(v2);
    await rehearsal.restartUntilQuiet();
    expect(rehearsal.running.version).toBe(v2.version);
    expect(bootSim(rehearsal.files, firmware, releases).version).toBe(v2.version);
  });

  test("an old slot that no longer starts does not keep the node", async () => {
    const node = new SimNode(firmware);
    await node.upgrade();
    await node.restartUntilQuiet();
    node.gate = (release) => (release === v1 ? "hangs" : { ok: true });
    await node.rollBack(v1);
    await node.restartUntilQuiet();
    expect(node.running.version).toBe(v2.version);
    expect(node.state.plan?.state).toBe("returned");
    expect(bootSim(node.files, firmware, releases).version).toBe(v2.version);
  });
});

test("a bundle that turns out damaged ends the plan before anything is written", async () => {
  const node = new SimNode("uefi");
  node.corrupt = true;
  const before = node.files.read("/dev/sim#4", 0, 100);
  await node.upgrade();
  expect(node.state.plan).toMatchObject({ state: "failed", failure: "The bundle is damaged." });
  expect(node.files.read("/dev/sim#4", 0, 100)).toEqual(before);
  expect(bootSim(node.files, "uefi", releases).version).toBe(v1.version);
});

async function copyOf(node: SimNode): Promise<SimFiles> {
  return node.files.afterCut(() => 0);
}

test("boot loaders don't go back: not by the other slot, not by the bundle of an older version", async () => {
  const node = new SimNode("uefi");
  await node.upgrade();
  await node.restartUntilQuiet();
  await node.rollBack(v1);
  await node.restartUntilQuiet();
  expect(node.running.version).toBe(v1.version);
  expect(node.loaders()).toEqual([v2.version, v2.version]);
  expect(node.state.loaders).toBe(v2.version);
});

test.each<[string, (files: SimFiles, next: SimRelease) => SimRelease, RegExp]>([
  [
    "a loader that is no UEFI program",
    (_files, next) => ({
      ...next,
      loaders: { ...next.loaders, "systemd-boot": Buffer.from("hello") },
    }),
    /could not be brought up to date\. The bundle's systemd-boot is no UEFI program/,
  ],
  [
    "a GRUB without its list",
    (_files, next) => ({
      ...next,
      loaders: { ...next.loaders, "grub-core": Buffer.alloc(32_768) },
    }),
    /The bundle's GRUB is not in one piece/,
  ],
  [
    "a GRUB that does not fit into half of its partition",
    (_files, next) => {
      const core = Buffer.from(next.loaders["grub-core"]);
      core.writeUInt16LE(40, 508);
      return { ...next, loaders: { ...next.loaders, "grub-core": core } };
    },
    /GRUB stays as it was: the new one does not fit beside the old one/,
  ],
  [
    "a disk whose first sector starts something else",
    (files, next) => {
      const sector = files.read("/dev/sim", 0, 512);
      sector.writeBigUInt64LE(1n, 0x5c);
      files.write("/dev/sim", 0, sector);
      files.sync("/dev/sim");
      return next;
    },
    /the first sector starts something at 1, not in keelson-bios/,
  ],
])("%s leaves the node on its version, and is said", async (_what, spoil, message) => {
  const node = new SimNode("uefi");
  node.next = spoil(node.files, v2);
  await node.upgrade();
  await node.restartUntilQuiet();
  expect(node.running.version).toBe(v2.version);
  expect(node.state.plan).toMatchObject({ state: "done", failure: null });
  expect(node.state.plan?.steps.at(-1)?.message).toMatch(message);
  expect(node.state.loaders, "tried again with the next version").toBeUndefined();
  expect(bootSim(node.files, "uefi", releases).version).toBe(v2.version);
});
