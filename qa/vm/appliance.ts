/**
 * An appliance in QEMU: a disk, the ISO that installs it, the machine that boots from it, a client
 * of its API. Used by the scenarios and by `npm run appliance`.
 */
import { closeSync, openSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, fetch, type RequestInit, type Response } from "undici";
import type { AnswersInput } from "#lib/answer-file/schema.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { errorOf } from "#lib/rpc/problem.ts";
import type { Acceleration } from "./acceleration.ts";
import { type Disk, type Firmware, Machine, type Nic } from "./machine.ts";
import { writeSeedMedium } from "./seed.ts";
import type { Segment } from "./segment.ts";

/** Emulation on a busy machine is slow; fail patterns end a hopeless wait long before these. */
export const limits = { installMs: 2_400_000, bootMs: 1_500_000, stopMs: 300_000 } as const;

/** The machine has given up: what no scenario but one that breaks it expects to read. */
export const fatal: readonly RegExp[] = [
  /Kernel panic.*/,
  /Keelson cannot start.*/,
  /Installation impossible.*/,
  /You are in emergency mode/,
  /grub rescue>/,
  /No bootable device/,
  /BdsDxe: No bootable option or device was found/,
];
/** On the console's page, or in its lines. */
export const refused = /(?:Installation|Answers) refused: .*/;

export const netbootSubnet = {
  address: "10.77.0.1",
  prefix: 24,
  pool: "10.77.0.100-10.77.0.199",
} as const;

export const lanMac = "52:54:00:4b:00:01";
export const netbootMac = "52:54:00:4b:00:02";

/** A sparse file of zeroes. */
export function createDisk(path: string, sizeBytes: number): void {
  rmSync(path, { force: true });
  closeSync(openSync(path, "w"));
  truncateSync(path, sizeBytes);
}

/** Answers that suit the machines below: one disk, LAN by DHCP, netboot on the private segment. */
export function applianceAnswers(passwordHash: string, change: Partial<AnswersInput> = {}) {
  return {
    version: 1,
    node: { name: "keelson-vm" },
    disk: { serial: "keelson-boot" },
    network: {
      lan: { interface: lanMac, address: "dhcp" },
      netboot: {
        interface: netbootMac,
        mode: "server",
        address: `${netbootSubnet.address}/${netbootSubnet.prefix}`,
        pool: netbootSubnet.pool,
      },
    },
    admin: { passwordHash },
    after: "poweroff",
    ...change,
  } satisfies AnswersInput;
}

export interface ApplianceOptions {
  readonly name: string;
  readonly directory: string;
  readonly disk: string;
  readonly firmware: Firmware;
  readonly acceleration: Acceleration;
  readonly memoryMiB?: number;
  readonly httpsPort: number;
  /** Of `disk`, default raw. An overlay that honours flushes loses, when killed, what wasn't flushed. */
  readonly diskFormat?: "raw" | "qcow2";
  /** See MachineOptions. */
  readonly variables?: string;
  readonly state?: string;
  /** The private segment of diskless clients. */
  readonly segment?: Segment;
  /** Further ports, after these. */
  readonly moreNics?: readonly Nic[];
  /** Further arguments for QEMU. */
  readonly extra?: readonly string[];
  readonly onLine?: (line: string) => void;
}

function nics(options: Pick<ApplianceOptions, "httpsPort" | "segment" | "moreNics">): Nic[] {
  return [
    { mac: lanMac, forward: [{ host: options.httpsPort, guest: 443 }] },
    ...(options.segment === undefined ? [] : [{ mac: netbootMac, segment: options.segment }]),
    ...(options.moreNics ?? []),
  ];
}

function bootDisk(options: Pick<ApplianceOptions, "disk" | "diskFormat">): Disk {
  const format = options.diskFormat ?? "raw";
  return {
    path: options.disk,
    format,
    serial: "keelson-boot",
    bootIndex: 1,
    ...(format === "qcow2" ? { cache: "writeback" } : {}),
  };
}

/** The live medium as a CD under BIOS and as a USB stick under UEFI: it is made for both. */
export function mediumDisk(iso: string, firmware: Firmware): Disk {
  return {
    path: iso,
    format: "raw",
    bus: firmware === "bios" ? "cdrom" : "usb",
    readOnly: true,
    bootIndex: 2,
  };
}

/** Boots the ISO with `disks` beside the boot disk and returns while it runs. */
export async function startInstaller(
  options: Omit<ApplianceOptions, "httpsPort"> & { readonly iso: string },
  disks: readonly Disk[] = [],
): Promise<Machine> {
  const machine = await Machine.start({
    name: options.name,
    directory: options.directory,
    firmware: options.firmware,
    acceleration: options.acceleration,
    memoryMiB: options.memoryMiB ?? 2048,
    // Without -no-reboot a restart would boot the fresh disk in the same machine.
    extra: ["-no-reboot"],
    disks: [mediumDisk(options.iso, options.firmware), bootDisk(options), ...disks],
    nics: [{ mac: lanMac }],
  });
  if (options.onLine !== undefined) machine.serial.onLine(options.onLine);
  return machine;
}

/** Installs unattended and waits until the machine has powered itself off. */
export async function installAppliance(
  options: Omit<ApplianceOptions, "httpsPort"> & { readonly iso: string },
  answers: AnswersInput,
): Promise<void> {
  const seed = join(options.directory, `${options.name}.seed.img`);
  writeSeedMedium(seed, JSON.stringify(answers, null, 2));
  const machine = await startInstaller(options, [{ path: seed, format: "raw", readOnly: true }]);
  try {
    await machine.serial.waitFor(/Installation complete/, limits.installMs, {
      fail: [...fatal, refused],
      what: "complete installation",
    });
    if (!(await machine.waitForEnd(limits.stopMs))) {
      throw new KeelsonError("TIMEOUT", "The machine did not power off after the installation.");
    }
  } finally {
    await machine.kill();
  }
}

/** Boots an installed disk; the caller waits for what it needs. */
export async function startAppliance(options: ApplianceOptions): Promise<Machine> {
  const machine = await Machine.start({
    name: options.name,
    directory: options.directory,
    firmware: options.firmware,
    acceleration: options.acceleration,
    memoryMiB: options.memoryMiB ?? 2048,
    disks: [bootDisk(options)],
    nics: nics(options),
    ...(options.variables === undefined ? {} : { variables: options.variables }),
    ...(options.state === undefined ? {} : { state: options.state }),
    ...(options.extra === undefined ? {} : { extra: options.extra }),
  });
  if (options.onLine !== undefined) machine.serial.onLine(options.onLine);
  return machine;
}

/** A client of the appliance's API at a forwarded port; its certificate is its own. */
export class ApplianceClient {
  readonly url: string;
  readonly #agent = new Agent({
    connect: { rejectUnauthorized: false, timeout: 20_000 },
    headersTimeout: 120_000,
    bodyTimeout: 600_000,
  });
  #token: string | undefined;

  constructor(httpsPort: number) {
    this.url = `https://127.0.0.1:${httpsPort}`;
  }

  /** JSON of an answer under /api/v1; the KeelsonError that a problem document carries. */
  async call<Body>(method: string, path: string, body?: unknown): Promise<Body> {
    const response = await this.#fetch(path, {
      method,
      headers: {
        ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    const value = text === "" ? undefined : parseJson(text);
    if (!response.ok) throw errorOf(value, response.status);
    return value as Body;
  }

  /** The bytes of a file as the data of an image that is being uploaded. */
  async upload<Body>(
    path: string,
    body: AsyncIterable<Uint8Array>,
    length: number,
    method = "PUT",
  ): Promise<Body> {
    const response = await this.#fetch(path, {
      method,
      duplex: "half",
      body,
      headers: {
        "content-type": "application/octet-stream",
        "content-length": String(length),
        ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }),
      },
    });
    const text = await response.text();
    const value = text === "" ? undefined : parseJson(text);
    if (!response.ok) throw errorOf(value, response.status);
    return value as Body;
  }

  /** UNAVAILABLE, with what undici keeps to itself as the cause. */
  async #fetch(path: string, options: RequestInit): Promise<Response> {
    try {
      return await fetch(`${this.url}/api/v1${path}`, { ...options, dispatcher: this.#agent });
    } catch (error) {
      const { message, cause } = error as Error;
      const why = cause instanceof Error ? `${message}: ${cause.message}` : message;
      throw new KeelsonError("UNAVAILABLE", `${options.method} ${path}: ${why}.`, { cause });
    }
  }

  /** Waits until the API answers; TIMEOUT, or at once when `machine` has ended. */
  async waitUntilUp(machine: Machine, timeoutMs: number): Promise<void> {
    const until = Date.now() + timeoutMs;
    for (;;) {
      try {
        await this.call("GET", "/ping");
        return;
      } catch (error) {
        if (!machine.running) {
          throw new KeelsonError("UNAVAILABLE", `The machine ended. ${machine.serial.tail()}`);
        }
        const bad = fatal.find((pattern) => pattern.test(machine.serial.text));
        if (bad !== undefined || Date.now() > until) {
          throw new KeelsonError(
            "TIMEOUT",
            `The API does not answer (${(error as Error).message}). ${machine.serial.tail(30)}`,
          );
        }
        await sleep(2_000);
      }
    }
  }

  async logIn(password: string): Promise<void> {
    const { token } = await this.call<{ token: string }>("POST", "/session", {
      user: "admin",
      password,
    });
    this.#token = token;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
