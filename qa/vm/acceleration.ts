/**
 * KVM only after a guest has run under it: there are machines whose /dev/kvm opens and then hangs.
 * The probe is a boot sector that says so on a serial port and ends QEMU through isa-debug-exit.
 */
import { spawn } from "node:child_process";
import {
  accessSync,
  constants,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

export type Acceleration = "kvm" | "tcg";

export interface AccelerationChoice {
  readonly acceleration: Acceleration;
  /** For a person: why. */
  readonly reason: string;
}

const probeLimitMs = 20_000;
const cache = resolve(import.meta.dirname, "../../.cache/acceleration.json");

/** mov dx,3f8h; mov al,'K'; out; mov dx,501h; mov al,10h; out (exit status 0x10*2+1); hlt; jmp. */
const probeCode = Buffer.from([
  0xba, 0xf8, 0x03, 0xb0, 0x4b, 0xee, 0xba, 0x01, 0x05, 0xb0, 0x10, 0xee, 0xf4, 0xeb, 0xfd,
]);
const probeExitStatus = 33;

/**
 * QEMU's arguments for the choice; `tbSizeMiB` bounds what emulation takes for translated code.
 *
 * No CX16 under emulation. QEMU before 8.0 works out the flags of CMPXCHG16B and CMPXCHG8B from
 * an operation that is not the last one, so EFLAGS may hold the low half of an address. An interrupt
 * that comes just then pushes that, and IRET with NT set dies: `double fault` in Linux's allocator,
 * which exchanges its free list so (QEMU 7.2, Linux 6.12; seen once in some hours of PostgreSQL).
 * Without CX16 Linux calls a routine of its own, and nothing on the x86-64 baseline asks for it.
 */
export function accelerationArguments(acceleration: Acceleration, tbSizeMiB = 256): string[] {
  return acceleration === "kvm"
    ? ["-accel", "kvm", "-cpu", "host"]
    : ["-accel", `tcg,thread=multi,tb-size=${tbSizeMiB}`, "-cpu", "max,-cx16"];
}

/** The choice for this boot of the machine; kept in .cache, since a hanging probe takes 20 s. */
export async function chooseAcceleration(): Promise<AccelerationChoice> {
  const forced = process.env.KEELSON_ACCELERATION;
  if (forced === "kvm" || forced === "tcg") {
    return { acceleration: forced, reason: "KEELSON_ACCELERATION says so" };
  }
  const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const kept = readCache(bootId);
  if (kept !== undefined) return kept;
  const choice = await probe();
  mkdirSync(dirname(cache), { recursive: true });
  writeFileSync(cache, JSON.stringify({ bootId, ...choice }));
  return choice;
}

function readCache(bootId: string): AccelerationChoice | undefined {
  try {
    const { bootId: of, acceleration, reason } = JSON.parse(readFileSync(cache, "utf8"));
    return of === bootId ? { acceleration, reason } : undefined;
  } catch {
    return undefined;
  }
}

async function probe(): Promise<AccelerationChoice> {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return { acceleration: "tcg", reason: "no /dev/kvm that this user may open" };
  }
  const started = Date.now();
  const status = await runProbe("kvm", probeLimitMs);
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  if (status === probeExitStatus) {
    return { acceleration: "kvm", reason: `a probe guest ran under KVM in ${seconds} s` };
  }
  const what =
    status === undefined ? `did not end within ${seconds} s` : `failed with status ${status}`;
  return { acceleration: "tcg", reason: `/dev/kvm is there, but a probe guest ${what}` };
}

/** Exit status of the probe guest; undefined if it had to be killed after `limitMs`. */
export async function runProbe(acceleration: Acceleration, limitMs: number) {
  const directory = mkdtempSync(join(tmpdir(), "keelson-probe-"));
  const disk = Buffer.alloc(2 ** 20); // SeaBIOS boots no smaller disk
  probeCode.copy(disk);
  disk.writeUInt16LE(0xaa55, 510);
  writeFileSync(join(directory, "boot.img"), disk);
  const qemu = spawn(
    "qemu-system-x86_64",
    [
      ...["-M", "q35", "-m", "64", "-display", "none", "-nodefaults", "-no-reboot"],
      ...accelerationArguments(acceleration, 32),
      ...["-drive", `file=${directory}/boot.img,format=raw,if=none,id=d,readonly=on`],
      ...["-device", "virtio-blk-pci,drive=d,bootindex=1"],
      ...["-device", "isa-debug-exit,iobase=0x501,iosize=0x01"],
    ],
    { stdio: "ignore" },
  );
  const timer = setTimeout(() => qemu.kill("SIGKILL"), limitMs);
  try {
    return await new Promise<number | undefined>((done) => {
      qemu.once("error", () => done(-1));
      qemu.once("exit", (code, signal) => done(code ?? (signal === "SIGKILL" ? undefined : -1)));
    });
  } finally {
    clearTimeout(timer);
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Guest CPUs: two under KVM. One under emulation: with two, a guest that patches its own code while
 * the other CPU runs it dies of `Oops: int3` now and then (QEMU 7.2, Linux 6.12; seen in one boot of
 * eight on a busy host).
 */
export function guestCpus(acceleration: Acceleration): number {
  return acceleration === "kvm" ? Math.min(2, availableParallelism()) : 1;
}
