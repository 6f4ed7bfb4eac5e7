/**
 * One virtual machine: QEMU as a child process that dies with us (also when we are killed), its
 * serial port as a SerialLog, its monitor for screenshots and the power button.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import { type Acceleration, accelerationArguments, guestCpus } from "./acceleration.ts";
import { Monitor } from "./monitor.ts";
import type { Segment } from "./segment.ts";
import { SerialLog } from "./serial-log.ts";

export type Firmware = "bios" | "uefi";

export interface Disk {
  readonly path: string;
  readonly format: "raw" | "qcow2";
  readonly serial?: string;
  readonly readOnly?: boolean;
  /** `unsafe` (default) forgets flushes: right unless QEMU is killed on purpose. */
  readonly cache?: "unsafe" | "writeback";
  /** `cdrom` hangs on SATA, `usb` is a stick; default is virtio. */
  readonly bus?: "virtio" | "cdrom" | "usb" | "sata";
  /** Place in the boot order, from 1; not bootable if missing. */
  readonly bootIndex?: number;
}

export interface Nic {
  readonly mac: string;
  /** On a private segment, or behind QEMU's NAT with ports forwarded from 127.0.0.1. */
  readonly segment?: Segment;
  readonly forward?: readonly { readonly host: number; readonly guest: number }[];
  readonly bootIndex?: number;
  /** QEMU's own boot ROM (iPXE); without one the firmware's network stack is used. */
  readonly rom?: boolean;
}

export interface MachineOptions {
  readonly name: string;
  /** For logs, sockets, firmware variables: kept after the machine ends. */
  readonly directory: string;
  readonly firmware: Firmware;
  readonly acceleration: Acceleration;
  readonly memoryMiB: number;
  readonly cpus?: number;
  readonly disks?: readonly Disk[];
  readonly nics?: readonly Nic[];
  /** Boot a kernel directly, for a machine without firmware. */
  readonly kernel?: { readonly path: string; readonly initrd: string; readonly line: string };
  readonly tbSizeMiB?: number;
  /** UEFI's variables, a qcow2 made when missing; default: a file named after the machine. */
  readonly variables?: string;
  /** Goes on from this `saveState` instead of starting. */
  readonly state?: string;
  readonly extra?: readonly string[];
}

const ovmf = "/usr/share/OVMF";

export class Machine {
  readonly name: string;
  readonly serial: SerialLog;
  readonly pid: number;
  readonly #qemu: ChildProcess;
  readonly #monitor: Promise<Monitor>;
  readonly #sockets: string;
  readonly exited: Promise<number | null>;
  /** Ids of what was plugged in while it ran. */
  readonly plugged = new Set<string>();

  private constructor(options: MachineOptions, qemu: ChildProcess, sockets: string) {
    this.name = options.name;
    this.pid = qemu.pid!;
    this.#qemu = qemu;
    this.#sockets = sockets;
    const log = join(options.directory, `${options.name}.serial.log`);
    this.serial = new SerialLog(log, (text) => this.type(text));
    let complaints = "";
    qemu.stdout!.on("data", (bytes: Buffer) => this.serial.push(bytes));
    qemu.stdin!.on("error", () => {});
    qemu.stderr!.on("data", (bytes: Buffer) => {
      complaints = (complaints + bytes.toString()).slice(-2000);
    });
    this.exited = new Promise((resolve) => {
      qemu.once("close", (code, signal) => {
        const how = signal === null ? `with status ${code}` : `by ${signal}`;
        this.serial.end(`QEMU of ${options.name} ended ${how}. ${complaints.trim()}`);
        rmSync(sockets, { recursive: true, force: true });
        resolve(code);
      });
    });
    this.#monitor = Monitor.open(join(sockets, "qmp"));
    this.#monitor.catch(() => {});
  }

  /** UNAVAILABLE if QEMU or its firmware is not installed. */
  static async start(options: MachineOptions): Promise<Machine> {
    mkdirSync(options.directory, { recursive: true });
    const sockets = mkdtempSync(join(tmpdir(), "keelson-vm-"));
    const arguments_ = machineArguments(options, sockets);
    // setpriv: the guest ends when this process does, whatever kills it.
    const qemu = spawn("setpriv", ["--pdeathsig", "KILL", "qemu-system-x86_64", ...arguments_], {
      stdio: ["pipe", "pipe", "pipe"],
      // Its own session: Ctrl-C is for us, who then press the guest's power button.
      detached: true,
    });
    await new Promise<void>((resolve, reject) => {
      qemu.once("spawn", resolve);
      qemu.once("error", (cause) =>
        reject(new KeelsonError("UNAVAILABLE", `Can't start QEMU: ${cause.message}.`, { cause })),
      );
    });
    return new Machine(options, qemu, sockets);
  }

  get running(): boolean {
    return this.#qemu.exitCode === null && this.#qemu.signalCode === null;
  }

  /** Types on the serial port. */
  type(text: string): void {
    this.#qemu.stdin!.write(text);
  }

  async command(execute: string, parameters?: object): Promise<unknown> {
    return (await this.#monitor).command(execute, parameters);
  }

  /** A PNG of the screen. */
  async screenshot(path: string): Promise<void> {
    await this.command("screendump", { filename: path, format: "png" });
  }

  /**
   * Keeps memory, devices and disks inside the machine's qcow2 files, for `MachineOptions.state`.
   * The machine stands still meanwhile. INTERNAL with QEMU's words if a disk can't keep it.
   */
  async saveState(name: string): Promise<void> {
    const said = await this.command("human-monitor-command", { "command-line": `savevm ${name}` });
    if (said !== "") throw new KeelsonError("INTERNAL", `QEMU refused savevm: ${said}`);
  }

  /** Plugs a raw disk image in as a USB stick, write-protected unless `writable`. */
  async plugIn(id: string, path: string, writable = false): Promise<void> {
    await this.command("blockdev-add", {
      driver: "raw",
      "node-name": `${id}-node`,
      "read-only": !writable,
      file: { driver: "file", filename: path, "read-only": !writable },
    });
    await this.command("device_add", {
      driver: "usb-storage",
      id,
      drive: `${id}-node`,
      bus: "hotplug.0",
    });
    this.plugged.add(id);
  }

  /** Pulls it out again. The guest has no say in it with USB; QEMU needs a moment. */
  async pullOut(id: string): Promise<void> {
    await this.command("device_del", { id });
    this.plugged.delete(id);
    for (let tries = 0; ; tries++) {
      await sleep(200);
      try {
        await this.command("blockdev-del", { "node-name": `${id}-node` });
        return;
      } catch (error) {
        if (tries > 50) throw error;
      }
    }
  }

  /** Presses the power button and waits; false if it had to be killed after `timeoutMs`. */
  async powerOff(timeoutMs: number): Promise<boolean> {
    if (this.running) await this.command("system_powerdown").catch(() => {});
    return this.#gone(timeoutMs);
  }

  /** The guest ends itself (reboot counts, with `-no-reboot`); false if killed after `timeoutMs`. */
  waitForEnd(timeoutMs: number): Promise<boolean> {
    return this.#gone(timeoutMs);
  }

  /** Pulls the plug. */
  async kill(): Promise<void> {
    if (this.running) this.#qemu.kill("SIGKILL");
    await this.exited;
    (await this.#monitor.catch(() => undefined))?.close();
    rmSync(this.#sockets, { recursive: true, force: true });
  }

  async #gone(timeoutMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), timeoutMs);
    });
    const gone = await Promise.race([this.exited.then(() => true), late]);
    clearTimeout(timer);
    await this.kill();
    return gone;
  }
}

/** QEMU's command line; pure but for the copy of the firmware's variables. */
export function machineArguments(options: MachineOptions, sockets: string): string[] {
  const { nics = [], disks = [] } = options;
  return [
    ...["-name", options.name, "-M", "q35", "-nodefaults", "-no-user-config"],
    ...accelerationArguments(options.acceleration, options.tbSizeMiB),
    ...[
      "-smp",
      String(options.cpus ?? guestCpus(options.acceleration)),
      "-m",
      String(options.memoryMiB),
    ],
    ...["-display", "none", "-vga", "std", "-serial", "stdio"],
    ...["-qmp", `unix:${join(sockets, "qmp")},server=on,wait=off`],
    ...["-device", "virtio-rng-pci", "-device", "qemu-xhci,id=hotplug"],
    ...(options.firmware === "uefi" ? firmwareArguments(options) : []),
    ...disks.flatMap(diskArguments),
    ...nics.flatMap(nicArguments),
    ...(options.kernel === undefined
      ? []
      : [
          ...["-kernel", options.kernel.path, "-initrd", options.kernel.initrd],
          ...["-append", options.kernel.line],
        ]),
    ...(options.state === undefined ? [] : ["-loadvm", options.state]),
    ...(options.extra ?? []),
  ];
}

function firmwareArguments({ directory, name, ...options }: MachineOptions): string[] {
  const variables = options.variables ?? join(directory, `${name}.vars.qcow2`);
  if (!existsSync(join(ovmf, "OVMF_CODE_4M.fd"))) {
    throw new KeelsonError("UNAVAILABLE", `There is no ${ovmf}/OVMF_CODE_4M.fd.`, {
      remedy: "Install Debian's package ovmf.",
    });
  }
  if (!existsSync(variables)) copyVariables(variables);
  return [
    ...["-drive", `if=pflash,format=raw,unit=0,readonly=on,file=${ovmf}/OVMF_CODE_4M.fd`],
    ...["-drive", `if=pflash,format=qcow2,unit=1,file=${variables}`],
  ];
}

/** A new qcow2 at `path` that begins as `base`, which it leaves as it is. */
export function createOverlay(path: string, base: Pick<Disk, "path" | "format">): void {
  rmSync(path, { force: true });
  const from = ["-b", base.path, "-F", base.format];
  const result = spawnSync("qemu-img", ["create", "-q", "-f", "qcow2", ...from, path], {
    encoding: "utf8",
  });
  if (result.status === 0) return;
  throw new KeelsonError(
    "UNAVAILABLE",
    `qemu-img failed: ${result.error?.message ?? result.stderr.trim()}.`,
  );
}

/** As qcow2: a raw file could not be part of a saved state. */
function copyVariables(path: string): void {
  const from = join(ovmf, "OVMF_VARS_4M.fd");
  const result = spawnSync("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", from, path]);
  if (result.status === 0) return;
  throw new KeelsonError("UNAVAILABLE", `Can't make ${path}: ${result.error ?? result.stderr}.`);
}

function diskArguments(disk: Disk, index: number): string[] {
  const id = `disk${index}`;
  const drive = [
    `file=${disk.path}`,
    `format=${disk.format}`,
    `if=none,id=${id}`,
    `cache=${disk.cache ?? "unsafe"}`,
    ...(disk.readOnly === true ? ["readonly=on"] : ["discard=unmap"]),
  ].join(",");
  const device = {
    virtio: "virtio-blk-pci",
    cdrom: "ide-cd",
    sata: "ide-hd",
    usb: "usb-storage",
  }[disk.bus ?? "virtio"];
  const properties = [
    device,
    `drive=${id}`,
    ...(disk.serial === undefined ? [] : [`serial=${disk.serial}`]),
    ...(disk.bootIndex === undefined ? [] : [`bootindex=${disk.bootIndex}`]),
    ...(disk.bus === "usb" ? [`bus=usb${index}.0`] : []),
    ...(disk.bus === "cdrom" || disk.bus === "sata" ? [`bus=ide.${index}`] : []),
  ].join(",");
  const controller = disk.bus === "usb" ? ["-device", `qemu-xhci,id=usb${index}`] : [];
  return ["-drive", drive, ...controller, "-device", properties];
}

function nicArguments(nic: Nic, index: number): string[] {
  const id = `net${index}`;
  const forwards = (nic.forward ?? []).map(
    ({ host, guest }) => `,hostfwd=tcp:127.0.0.1:${host}-:${guest}`,
  );
  const netdev = nic.segment?.netdev(id) ?? `user,id=${id}${forwards.join("")}`;
  const properties = [
    `virtio-net-pci,netdev=${id},mac=${nic.mac}`,
    // Debian 13's iPXE ROM for virtio drives only the modern interface.
    "disable-legacy=on",
    ...(nic.bootIndex === undefined ? [] : [`bootindex=${nic.bootIndex}`]),
    ...(nic.rom === true ? [] : ["romfile="]),
  ].join(",");
  return ["-netdev", netdev, "-device", properties];
}

/** A TCP port of 127.0.0.1 that was free just now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
