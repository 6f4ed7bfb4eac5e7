/** Installed disks, one of each firmware: scenarios that run after each other install and boot once. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPassword } from "#lib/password/password.ts";
import { applianceAnswers, createDisk, installAppliance } from "./appliance.ts";
import { createOverlay, type Firmware } from "./machine.ts";
import type { ScenarioContext } from "./scenario.ts";

const diskBytes = 12 * 2 ** 30;
/** The name of a node's saved state for the scenario that comes next. */
export const servingState = "serving";

export interface Installed {
  /** Raw, as the installer left it: whoever starts from it takes a copy or an overlay. */
  readonly disk: string;
  /** Of admin. */
  readonly password: string;
}

/** What a node has for itself, in the directory of whoever runs it. */
export interface NodeDisk {
  /** qcow2, over an installed disk. */
  readonly disk: string;
  /** Of UEFI; a qcow2 that the machine makes when it is missing. */
  readonly variables: string;
  readonly password: string;
  /** Kept inside both by `Machine.saveState`: the node answers once it goes on from there. */
  readonly state?: typeof servingState;
}

export class Installations {
  readonly #directory: string;
  readonly #kept = new Map<Firmware, Installed>();
  readonly #serving = new Map<Firmware, NodeDisk>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Keeps a copy of a disk that was installed with `applianceAnswers` and not started since. */
  keep(firmware: Firmware, disk: string, password: string): Installed {
    const path = join(this.#directory, `${firmware}.raw`);
    mkdirSync(this.#directory, { recursive: true });
    copyDisk(disk, path);
    const installed = { disk: path, password };
    this.#kept.set(firmware, installed);
    return installed;
  }

  /** Keeps a node that served when `servingState` was saved and is off now, for the next one. */
  keepServing(firmware: Firmware, node: NodeDisk): void {
    const kept = overlayFiles(this.#directory, `${firmware}.serving`);
    moveNode(node, kept);
    this.#serving.set(firmware, { ...node, ...kept, state: servingState });
  }

  /**
   * The node that served last, for a scenario to which it makes no difference what the node did
   * before; without one, a fresh installation. The caller's own: `name.*` in `directory`.
   */
  async take(firmware: Firmware, context: ScenarioContext, name: string): Promise<NodeDisk> {
    const serving = this.#serving.get(firmware);
    if (serving === undefined) {
      return overlay(await this.get(firmware, context), context.directory, name);
    }
    this.#serving.delete(firmware);
    const own = overlayFiles(context.directory, name);
    moveNode(serving, own);
    return { ...serving, ...own };
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

/** A node that was installed and not started yet; what `name` had done before is forgotten. */
export function overlay(installed: Installed, directory: string, name: string): NodeDisk {
  const files = overlayFiles(directory, name);
  rmSync(files.variables, { force: true });
  createOverlay(files.disk, { path: installed.disk, format: "raw" });
  return { ...files, password: installed.password };
}

export function overlayFiles(
  directory: string,
  name: string,
): Pick<NodeDisk, "disk" | "variables"> {
  return {
    disk: join(directory, `${name}.qcow2`),
    variables: join(directory, `${name}.vars.qcow2`),
  };
}

function moveNode(
  from: Pick<NodeDisk, "disk" | "variables">,
  to: Pick<NodeDisk, "disk" | "variables">,
): void {
  renameSync(from.disk, to.disk);
  // There are none under BIOS.
  if (existsSync(from.variables)) renameSync(from.variables, to.variables);
}

/** A copy that takes only the room of what was written. */
export function copyDisk(from: string, to: string): void {
  const result = spawnSync("cp", ["--sparse=always", "--reflink=auto", from, to]);
  if (result.status === 0) return;
  throw new KeelsonError("UNAVAILABLE", `Can't copy ${from}: ${result.error ?? result.stderr}.`);
}
