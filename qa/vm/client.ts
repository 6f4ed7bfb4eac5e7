/** A machine on the private segment with an ordinary Debian, diskless or from a disk of its own. */
import { join } from "node:path";
import type { Acceleration } from "./acceleration.ts";
import { clientPassword } from "./client-image.ts";
import { createOverlay, type Disk, type Firmware, Machine } from "./machine.ts";
import type { Segment } from "./segment.ts";

export const clientMacs: Record<Firmware, string> = {
  bios: "52:54:00:4b:10:01",
  uefi: "52:54:00:4b:10:02",
};

const panic = /Kernel panic.*/;

/** What a client says when its boot is over, for the worse. */
export const clientFatal: readonly RegExp[] = [
  panic,
  /ALERT!.*does not exist/,
  /You are in (?:emergency|rescue) mode/,
  /BdsDxe: No bootable option/,
  /grub rescue>/,
];

const prompt = /root@client:~# /;

export interface ClientOptions {
  readonly name: string;
  readonly directory: string;
  readonly firmware: Firmware;
  readonly acceleration: Acceleration;
  readonly segment: Segment;
  /** Boots from this qcow2 instead of from the network; what it writes there goes with it. */
  readonly image?: string;
  readonly onLine?: (line: string) => void;
}

export async function startClient(options: ClientOptions): Promise<Machine> {
  const { firmware, image } = options;
  const machine = await Machine.start({
    name: options.name,
    directory: options.directory,
    firmware,
    acceleration: options.acceleration,
    memoryMiB: 768,
    cpus: 1,
    tbSizeMiB: 128,
    disks: image === undefined ? [] : [ownDisk(options, image)],
    nics: [
      {
        mac: clientMacs[firmware],
        segment: options.segment,
        ...(image === undefined ? { bootIndex: 1 } : {}),
        // BIOS knows no network by itself; OVMF has its own PXE.
        rom: firmware === "bios" && image === undefined,
      },
    ],
  });
  if (options.onLine !== undefined) machine.serial.onLine(options.onLine);
  return machine;
}

function ownDisk({ directory, name }: ClientOptions, image: string): Disk {
  const path = join(directory, `${name}.qcow2`);
  createOverlay(path, { path: image, format: "qcow2" });
  return { path, format: "qcow2", bootIndex: 1 };
}

/** Waits for the login prompt of the booted Debian and logs in as root. */
export async function logInToClient(machine: Machine, timeoutMs: number): Promise<void> {
  await machine.serial.waitFor(/client login: $/m, timeoutMs, {
    fail: clientFatal,
    what: "login prompt of the client",
  });
  machine.type("root\n");
  await machine.serial.waitFor(/Password: /, 120_000);
  machine.type(`${clientPassword}\n`);
  await machine.serial.waitFor(prompt, 120_000, { fail: [/Login incorrect/] });
}

/** Runs a shell command on a client that is logged in, and gives what it printed. */
export async function runOnClient(
  machine: Machine,
  command: string,
  timeoutMs = 120_000,
): Promise<string> {
  // The echo of the command line must not match: the mark is put together by the shell.
  machine.type(`${command}; echo "end""ing=$?"\n`);
  const [, output, status] = await machine.serial.waitFor(/\n([\s\S]*?)ending=(\d+)/, timeoutMs, {
    what: `end of '${command}'`,
    fail: [panic],
  });
  await machine.serial.waitFor(prompt, timeoutMs);
  if (status !== "0") throw new Error(`'${command}' ended with ${status}: ${output.trim()}`);
  return output.trim();
}
