/**
 * Scenario `install`: the ISO under both firmwares, wrong inputs first, then an installation, the
 * installed disk's boot, the API over TLS, and a damaged root and a damaged medium refused.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  constants,
  copyFileSync,
  createReadStream,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { AnswersInput } from "#lib/answer-file/schema.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPassword } from "#lib/password/password.ts";
import {
  ApplianceClient,
  type ApplianceOptions,
  applianceAnswers,
  createDisk,
  fatal,
  limits,
  refused,
  startAppliance,
  startInstaller,
} from "./appliance.ts";
import { type NodeDisk, overlay, servingState } from "./installations.ts";
import { type Disk, type Firmware, freePort, type Machine } from "./machine.ts";
import { isoFileOffset } from "./medium-file.ts";
import { flipByte, readPartitions } from "./partition-table.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import { writeSeedMedium } from "./seed.ts";
import { createSegment } from "./segment.ts";

const diskBytes = 12 * 2 ** 30;
/** Room for nothing; and the magic that says a pool is here (docs/formats/store.md). */
const smallDiskBytes = 2 ** 30;
const poolId = "5f0c1de2-0b7a-4a51-9c57-2f6d1f7a9e10";

export const installScenario: Scenario = {
  name: "install",
  summary:
    "the ISO installs, the disk boots, the API answers; damage and wrong answers are refused",
  async run(context) {
    for (const firmware of context.firmwares) {
      await context.group(firmware === "bios" ? "SeaBIOS, CD" : "OVMF, USB stick", () =>
        installUnder(firmware, context),
      );
    }
  },
};

async function installUnder(firmware: Firmware, context: ScenarioContext): Promise<void> {
  const { step, directory } = context;
  const segment = await createSegment(join(directory, `${firmware}.hub`));
  const password = randomBytes(9).toString("base64url");
  const answers = applianceAnswers(hashPassword(password));
  const options: ApplianceOptions = {
    name: firmware,
    directory,
    disk: join(directory, `${firmware}.disk.raw`),
    firmware,
    acceleration: context.acceleration.acceleration,
    httpsPort: await freePort(),
    segment,
    ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
  };
  createDisk(options.disk, diskBytes);
  try {
    await installWithDetours(options, answers, context);
    const installed = context.installations.keep(firmware, options.disk, password);
    await bootInstalled(options, overlay(installed, directory, firmware), context);
    await step("a flipped byte in the root on the disk is refused by dm-verity", () =>
      refuseDamagedRoot(options),
    );
    rmSync(options.disk);
    await step("a flipped byte on the medium is refused by the installer", () =>
      refuseDamagedMedium(options, answers, context.iso),
    );
  } finally {
    await segment.close();
  }
}

/** One live session: no answers, wrong ones, a disk too small, a pool not named; then the right ones. */
async function installWithDetours(
  options: ApplianceOptions,
  answers: AnswersInput,
  context: ScenarioContext,
): Promise<void> {
  const { step, directory, iso } = context;
  const small: Disk = {
    path: join(directory, "small.raw"),
    format: "raw",
    serial: "too-small",
  };
  const pool: Disk = { path: join(directory, "pool.raw"), format: "raw", serial: "old-pool" };
  createDisk(small.path, smallDiskBytes);
  createDisk(pool.path, diskBytes);
  writePool(pool.path);
  const poolBefore = await digestOf(pool.path, 2 ** 26);

  const machine = await step(
    "the ISO boots and, without answers, says what it waits for",
    async () => {
      const started = await startInstaller({ ...options, name: `${options.name}-live`, iso }, [
        small,
        pool,
      ]);
      try {
        await started.serial.waitFor(/Addresses of this machine: 10\.0\.2\./, limits.bootMs, {
          fail: fatal,
          what: "waiting screen with an address",
        });
        await started.serial.waitFor(/Set up this machine/, limits.bootMs, { fail: fatal });
        await started.screenshot(join(directory, `${options.name}.waiting.png`));
        return started;
      } catch (error) {
        await started.kill();
        throw error;
      }
    },
  );
  try {
    await step(
      "answers with a plain password and a wrong address are refused, each with its place",
      async () => {
        await offer(machine, directory, {
          ...answers,
          admin: { passwordHash: "secret" },
          network: { lan: { address: "10.0.0.300/24" } },
        });
        await machine.serial.waitFor(refused, limits.bootMs, { fail: fatal });
        await machine.serial.waitFor(/network\.lan\.address: "10\.0\.0\.300\/24" is not/, 60_000);
        await machine.serial.waitFor(/admin\.passwordHash: is not a password hash/, 60_000);
      },
    );
    await step("a disk that is too small is refused with what is needed", async () => {
      await offer(machine, directory, { ...answers, disk: { serial: "too-small" } });
      await machine.serial.waitFor(
        /refused: .*too-small[^!]*too\s+small: [\d.]+\s+GiB/,
        limits.bootMs,
      );
    });
    await step("a disk with a pool that the answers don't name is refused", async () => {
      await offer(machine, directory, { ...answers, disk: { serial: "old-pool" } });
      await machine.serial.waitFor(/refused: [^!]*holds\s+Keelson\s+pool/, limits.bootMs);
    });
    await step("with right answers it installs and powers off", async () => {
      await offer(machine, directory, answers, "iso9660");
      await machine.serial.waitFor(/Installation complete in [^.]*\./, limits.installMs, {
        // The page with the refusal before is still shown when the new medium comes.
        fail: fatal,
        what: "complete installation",
      });
      if (!(await machine.waitForEnd(limits.stopMs))) {
        throw new KeelsonError("TIMEOUT", "The machine did not power off.");
      }
    });
  } finally {
    await machine.kill();
  }
  await step("the pool that was not named is untouched, byte for byte", async () => {
    if ((await digestOf(pool.path, 2 ** 26)) !== poolBefore) {
      throw new KeelsonError("INTERNAL", "The disk with the pool has changed.");
    }
  });
  rmSync(small.path);
  rmSync(pool.path);
}

/** Exchanges the seed medium of a running installer. */
async function offer(
  machine: Machine,
  directory: string,
  answers: object,
  format: "vfat" | "iso9660" = "vfat",
): Promise<void> {
  const path = join(directory, `${machine.name}.seed.img`);
  if (machine.plugged.has("seed")) await machine.pullOut("seed");
  writeSeedMedium(
    path,
    `// Written by the scenario.\n${JSON.stringify(answers, null, 2)}\n`,
    format,
  );
  await machine.plugIn("seed", path);
}

async function bootInstalled(
  options: ApplianceOptions,
  node: NodeDisk,
  { step, directory, installations }: ScenarioContext,
): Promise<void> {
  const { disk, variables, password } = node;
  const machine = await startAppliance({ ...options, disk, diskFormat: "qcow2", variables });
  const client = new ApplianceClient(options.httpsPort);
  try {
    await step("the installed disk boots and the API answers over TLS", () =>
      client.waitUntilUp(machine, limits.bootMs),
    );
    await step("a wrong password is refused, the right one logs in", async () => {
      const wrong = await client.logIn(`${password}x`).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (!(wrong instanceof KeelsonError) || wrong.code !== "UNAUTHENTICATED") {
        throw new KeelsonError("INTERNAL", `A wrong password gave: ${wrong ?? "a session"}.`);
      }
      await client.logIn(password);
      const node = await client.call<{ name: string }>("GET", "/node");
      if (node.name !== "keelson-vm") {
        throw new KeelsonError("INTERNAL", `The node calls itself ${node.name}.`);
      }
    });
    await step("the status screen shows address, certificate and good health", async () => {
      await machine.serial.waitFor(/Console\s+https:\/\/10\.0\.2\./, limits.bootMs, {
        fail: fatal,
      });
      await machine.serial.waitFor(/Certificate\s+SHA-256 [0-9A-F:]{47}/, limits.bootMs);
      await machine.serial.waitFor(/Health\s+good/, limits.bootMs);
      await machine.screenshot(join(directory, `${options.name}.status.png`));
    });
    await machine.saveState(servingState);
    await step("the power button shuts it down cleanly", async () => {
      if (!(await machine.powerOff(limits.stopMs))) {
        throw new KeelsonError("TIMEOUT", `It did not power off. ${machine.serial.tail(30)}`);
      }
    });
    installations.keepServing(options.firmware, node);
  } finally {
    await machine.kill();
  }
}

/** Flips a byte of the root's first block, which the mount reads, and boots. */
async function refuseDamagedRoot(options: ApplianceOptions): Promise<void> {
  const root = readPartitions(options.disk).find(({ label }) => /^keelson_\d/.test(label));
  if (root === undefined) throw new KeelsonError("NOT_FOUND", "The disk has no root partition.");
  flipByte(options.disk, root.firstByte + 1024 + 7);
  const machine = await startAppliance({ ...options, name: `${options.name}-damaged` });
  try {
    await machine.serial.waitFor(/verity[^\n]*corrupt|Keelson cannot start[^\n]*/, limits.bootMs, {
      what: "word of verity",
    });
    if (/Reached target.*keelson\.target/.test(machine.serial.text)) {
      throw new KeelsonError("INTERNAL", "The damaged root was booted.");
    }
  } finally {
    await machine.kill();
  }
}

/** Flips a byte in the middle of the root image on the medium, and tries to install. */
async function refuseDamagedMedium(
  options: ApplianceOptions,
  answers: AnswersInput,
  iso: string,
): Promise<void> {
  const copy = `${options.disk}.iso`;
  copyFileSync(iso, copy, constants.COPYFILE_FICLONE);
  const { firstByte, sizeBytes } = isoFileOffset(copy, "/keelson/root.img");
  flipByte(copy, firstByte + Math.floor(sizeBytes * 0.9));
  createDisk(options.disk, diskBytes);
  const name = `${options.name}-medium`;
  const seed = join(options.directory, `${name}.seed.img`);
  writeSeedMedium(seed, JSON.stringify(answers));
  const machine = await startInstaller({ ...options, name, iso: copy }, [
    { path: seed, format: "raw", readOnly: true },
  ]);
  try {
    await machine.serial.waitFor(
      /refused: The\s+installation\s+medium\s+is\s+damaged|verity[^\n]*corrupt/,
      limits.installMs,
      { fail: [/Installation complete/], what: "refusal of the damaged medium" },
    );
  } finally {
    await machine.kill();
  }
  // A sparse file that nothing was written to has no blocks.
  const untouched = statSync(options.disk).blocks === 0;
  rmSync(copy);
  rmSync(options.disk);
  if (!untouched) throw new KeelsonError("INTERNAL", "The installer wrote to the disk anyway.");
}

/** A superblock's magic and ids, as far as an installer looks. */
function writePool(path: string): void {
  const block = Buffer.alloc(4096);
  block.write("KEELSON-STORE-SB", 0, "latin1");
  Buffer.from(poolId.replaceAll("-", ""), "hex").copy(block, 32);
  randomBytes(16).copy(block, 48);
  writeFileSync(path, block, { flag: "r+" });
}

async function digestOf(path: string, lengthBytes: number): Promise<string> {
  const hash = createHash("sha256");
  for await (const bytes of createReadStream(path, { end: lengthBytes - 1 })) hash.update(bytes);
  return hash.digest("hex");
}
