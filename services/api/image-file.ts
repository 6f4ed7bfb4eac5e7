/**
 * Disk image files from strangers. What a qcow2's header may point at (backing file, external data
 * file) is refused by our own reading of the header, before any other program opens the file; then
 * qemu-img, under limits and without a shell, checks and converts it.
 */
import { spawn } from "node:child_process";
import { open } from "node:fs/promises";
import { KeelsonError } from "#lib/model/errors.ts";

export type ImageFormat = "raw" | "qcow2";

/** docs/interop/qcow2.txt of QEMU: the header's fields, big-endian. */
const qcow2 = {
  magic: 0x514649fb,
  version: 4,
  backingFileOffset: 8,
  sizeBytes: 24,
  cryptMethod: 32,
  incompatibleFeatures: 72,
  headerBytes: 80,
  /** Bits of the incompatible features. */
  corrupt: 1n << 1n,
  externalData: 1n << 2n,
} as const;

const otherFormats: [name: string, offset: number, magic: Buffer][] = [
  ["a VMDK", 0, Buffer.from("KDMV")],
  ["a VMDK", 0, Buffer.from("# Disk DescriptorFile")],
  ["a VHDX", 0, Buffer.from("vhdxfile")],
  ["a VHD", 0, Buffer.from("conectix")],
  ["a VDI", 64, Buffer.from([0x7f, 0x10, 0xda, 0xbe])],
  ["gzip-compressed", 0, Buffer.from([0x1f, 0x8b])],
  ["xz-compressed", 0, Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a])],
  ["zstd-compressed", 0, Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ["bzip2-compressed", 0, Buffer.from("BZh")],
  ["a zip archive", 0, Buffer.from("PK\x03\x04")],
];

const maxDiskBytes = 64 * 2 ** 40;

/** Format and size of the disk in the file. FORMAT_UNKNOWN, FORMAT_CORRUPT, UNSUPPORTED. */
export async function inspectImage(
  path: string,
  said: ImageFormat | "auto",
): Promise<{ format: ImageFormat; sizeBytes: number }> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const head = Buffer.alloc(512);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    const isQcow2 = bytesRead >= 4 && head.readUInt32BE(0) === qcow2.magic;
    if (said === "qcow2" && !isQcow2) {
      throw new KeelsonError("FORMAT_CORRUPT", "The file is not a qcow2 image.", {
        remedy: "Give its format, or none, so that it is found out.",
      });
    }
    if (isQcow2 && said !== "raw") {
      return { format: "qcow2", sizeBytes: checkQcow2(head.subarray(0, bytesRead)) };
    }
    const other = otherFormats.find(([, offset, magic]) =>
      head.subarray(offset, offset + magic.length).equals(magic),
    );
    if (other !== undefined && said === "auto") {
      throw new KeelsonError("FORMAT_UNKNOWN", `The file is ${other[0]} file, not raw or qcow2.`, {
        remedy: "Unpack it, or convert it with qemu-img convert -O qcow2, then import that.",
      });
    }
    if (size === 0) {
      throw new KeelsonError("FORMAT_CORRUPT", "The file is empty.", {
        remedy: "Check the download, then import it again.",
      });
    }
    return { format: "raw", sizeBytes: size };
  } finally {
    await file.close();
  }
}

/** Size of its disk in bytes. Refuses whatever would make a reader open another file. */
export function checkQcow2(head: Buffer): number {
  const corrupt = (why: string) =>
    new KeelsonError("FORMAT_CORRUPT", `The qcow2 image is damaged: ${why}.`, {
      remedy: "Check it with qemu-img check, or download it again.",
    });
  if (head.length < 72) throw corrupt("its header is cut short");
  const version = head.readUInt32BE(qcow2.version);
  if (version !== 2 && version !== 3) throw corrupt(`its version is ${version}`);
  if (version === 3 && head.length < qcow2.headerBytes) throw corrupt("its header is cut short");
  if (head.readBigUInt64BE(qcow2.backingFileOffset) !== 0n) {
    throw new KeelsonError("UNSUPPORTED", "The qcow2 image has a backing file.", {
      remedy: "Flatten it with qemu-img convert -O qcow2, then import that.",
    });
  }
  if (head.readUInt32BE(qcow2.cryptMethod) !== 0) {
    throw new KeelsonError("UNSUPPORTED", "The qcow2 image is encrypted.", {
      remedy: "Decrypt it with qemu-img convert, then import that.",
    });
  }
  if (version === 3) {
    const features = head.readBigUInt64BE(qcow2.incompatibleFeatures);
    if ((features & qcow2.externalData) !== 0n) {
      throw new KeelsonError("UNSUPPORTED", "The qcow2 image keeps its data in another file.", {
        remedy: "Flatten it with qemu-img convert -O qcow2, then import that.",
      });
    }
    if ((features & qcow2.corrupt) !== 0n) throw corrupt("it is marked as such");
  }
  const sizeBytes = Number(head.readBigUInt64BE(qcow2.sizeBytes));
  if (sizeBytes === 0) throw corrupt("its disk has no size");
  if (sizeBytes > maxDiskBytes) {
    throw new KeelsonError("UNSUPPORTED", "The disk in the image is larger than 64 TiB.");
  }
  return sizeBytes;
}

/** Of one qemu-img: memory, processor time, no core file. */
const limits = ["--as=2147483648", "--cpu=7200", "--core=0"];
const keptOutput = 16 * 1024;

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function runQemuImg(
  args: readonly string[],
  signal: AbortSignal,
  onOutput: (text: string) => void = () => {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn("prlimit", [...limits, "--", "qemu-img", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      signal,
      killSignal: "SIGKILL",
      env: { PATH: process.env.PATH ?? "/usr/bin:/bin", LC_ALL: "C" },
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout = (stdout + text).slice(-keptOutput);
      onOutput(text);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-keptOutput);
    });
    child.once("error", (cause) =>
      reject(
        signal.aborted
          ? new KeelsonError("CANCELLED", "Cancelled.")
          : new KeelsonError("UNAVAILABLE", `qemu-img can't be started: ${cause.message}.`, {
              remedy: "Install Debian's qemu-utils.",
              cause,
            }),
      ),
    );
    child.once("close", (status) => resolve({ status, stdout, stderr }));
  });
}

/** Consistency of a qcow2's own tables; leaked clusters only waste space and pass. */
export async function checkImage(path: string, signal: AbortSignal): Promise<void> {
  const args = ["check", "-q", "-f", "qcow2", "--output=json", path];
  const { status, stderr, stdout } = await runQemuImg(args, signal);
  // qemu-img(1): 0 consistent, 1 internal error, 2 corrupt, 3 leaks only.
  if (status === 0 || status === 3) return;
  const said = lastLine(stderr) ?? lastLine(stdout) ?? `status ${status}`;
  throw new KeelsonError("FORMAT_CORRUPT", `The qcow2 image is damaged: ${said}.`, {
    remedy: "Download it again, or repair it with qemu-img check -r all.",
  });
}

/** Writes the image's disk to `target`, a URI that qemu-img takes, which reads as zeroes now. */
export async function convertImage(
  path: string,
  format: ImageFormat,
  target: string,
  signal: AbortSignal,
  onPercent: (percent: number) => void,
): Promise<void> {
  const args = [
    ...["convert", "-p", "-n", "--target-is-zero", "-f", format, "-O", "raw"],
    // Not the default `unsafe`: the last flush must be done and its failure seen.
    ...["-t", "writeback", "-m", "8", path, target],
  ];
  let lastPercent = -1;
  const { status, stderr } = await runQemuImg(args, signal, (text) => {
    const percent = Number(/\((\d+(?:\.\d+)?)\/100%\)[^(]*$/.exec(text)?.[1] ?? Number.NaN);
    if (percent - lastPercent >= 0.5 || percent === 100) {
      lastPercent = percent;
      onPercent(percent);
    }
  });
  if (status === 0) return;
  const said =
    lastLine(stderr) ?? `it ended with ${status === null ? "a signal" : `status ${status}`}`;
  if (/no space left/i.test(said)) {
    throw new KeelsonError("NO_SPACE", "The store is full.", {
      remedy: "Delete volumes or images that aren't needed, then import it again.",
    });
  }
  throw new KeelsonError("FORMAT_CORRUPT", `The image can't be copied: ${said}.`, {
    remedy: "Check it with qemu-img check; look at the store's state.",
  });
}

function lastLine(text: string): string | undefined {
  const line = text
    .trim()
    .split("\n")
    .at(-1)
    ?.replace(/^qemu-img: /, "")
    .replace(/\.$/, "");
  return line === "" ? undefined : line;
}
