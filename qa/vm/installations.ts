/** Installed disks, one of each firmware: scenarios that run after each other install once. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPassword } from "#lib/password/password.ts";
import { applianceAnswers, createDisk, installAppliance } from "./appliance.ts";
import type { Firmware } from "./machine.ts";
import type { ScenarioContext } from "./scenario.ts";

const diskBytes = 12 * 2 ** 30;

export interface Installed {
  /** Raw, as the installer left it: whoever starts from it takes a copy or an overlay. */
  readonly disk: string;
  /** Of admin. */
  readonly password: string;
}

export class Installations {
  readonly #directory: string;
  readonly #kept = new Map<Firmware, Installed>();
  readonly #used = new Map<Firmware, Installed>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Keeps a copy of a disk that was installed with `applianceAnswers` and not started since. */
  keep(firmware: Firmware, disk: string, password: string): void {
    const path = join(this.#directory, `${firmware}.raw`);
    mkdirSync(this.#directory, { recursive: true });
    copyDisk(disk, path);
    this.#kept.set(firmware, { disk: path, password });
  }

  /** Keeps the disk of a node that has served since and was shut down; `disk` is gone then. */
  keepUsed(firmware: Firmware, disk: string, password: string): void {
    const path = join(this.#directory, `${firmware}.used.raw`);
    renameSync(disk, path);
    this.#used.set(firmware, { disk: path, password });
  }

  /** For a scenario to which it makes no difference what the node did before. */
  used(firmware: Firmware): Installed | undefined {
    return this.#used.get(firmware);
  }

  /** Installs the image under test, unless that was done before. */
  async get(firmware: Firmware, context: ScenarioContext): Promise<Installed> {
    const known = this.#kept.get(firmware);
    if (known !== undefined) return known;
    const password = randomBytes(9).toString("base64url");
    const disk = join(this.#directory, `${firmware}.raw`);
    mkdirSync(this.#directory, { recursive: true });
    createDisk(disk, diskBytes);
    await installAppliance(
      {
        ...{ name: `${firmware}-install`, directory: this.#directory, disk, firmware },
        acceleration: context.acceleration.acceleration,
        iso: context.iso,
        ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
      },
      applianceAnswers(hashPassword(password)),
    );
    const installed = { disk, password };
    this.#kept.set(firmware, installed);
    return installed;
  }
}

/** A copy that takes only the room of what was written. */
export function copyDisk(from: string, to: string): void {
  const result = spawnSync("cp", ["--sparse=always", "--reflink=auto", from, to]);
  if (result.status === 0) return;
  throw new KeelsonError("UNAVAILABLE", `Can't copy ${from}: ${result.error ?? result.stderr}.`);
}
