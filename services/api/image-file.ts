/**
 * Disk image files from strangers. What a qcow2's header may point at (backing file, external data
 * file) is refused by our own reading of the header, before any other program opens the file; then
 * qemu-img, under limits and without a shell, checks and converts it.
 */
import { spawn } from "node:child_process";
import { open } from "node:fs/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import { type ImageFormat, recogniseForeign } from "./image-formats.ts";

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

const packed: [name: string, magic: Buffer][] = [
  ["gzip-compressed", Buffer.from([0x1f, 0x8b])],
  ["xz-compressed", Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a])],
  ["zstd-compressed", Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ["bzip2-compressed", Buffer.from("BZh")],
  ["a zip archive", Buffer.from("PK\x03\x04")],
];

const maxDiskBytes = 64 * 2 ** 40;

/** What is in a file, and how qemu-img is to open it. */
export interface InspectedImage {
  readonly format: ImageFormat;
  readonly sizeBytes: number;
  /** `json:...`, which names the driver and forbids a backing file. */
  readonly source: string;
}

/** Format and size of the disk in the file. FORMAT_UNKNOWN, FORMAT_CORRUPT, UNSUPPORTED. */
export async function inspectImage(
  path: string,
  said: ImageFormat | "auto",
  signal: AbortSignal = new AbortController().signal,
): Promise<InspectedImage> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const head = Buffer.alloc(512);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    const isQcow2 = bytesRead >= 4 && head.readUInt32BE(0) === qcow2.magic;
    if (isQcow2 && (said === "qcow2" || said === "auto")) {
      const sizeBytes = checkQcow2(head.subarray(0, bytesRead));
      return { format: "qcow2", sizeBytes, source: sourceOf(path, "qcow2") };
    }
    const foreign = said === "raw" ? undefined : await recogniseForeign(file, size);
    if (foreign !== undefined && (said === foreign.format || said === "auto")) {
      const source = sourceOf(path, foreign.driver, foreign);
      return { format: foreign.format, sizeBytes: await diskBytes(source, signal), source };
    }
    if (said !== "raw" && said !== "auto") {
      throw new KeelsonError("FORMAT_CORRUPT", `The file is not a ${said} image.`, {
        remedy: "Give its format, or none, so that it is found out.",
      });
    }
    const pack = packed.find(([, magic]) => head.subarray(0, magic.length).equals(magic));
    if (pack !== undefined && said === "auto") {
      throw new KeelsonError("FORMAT_UNKNOWN", `The file is ${pack[0]}, not a disk image.`, {
        remedy: "Unpack it, then import what was in it.",
      });
    }
    if (size === 0) {
      throw new KeelsonError("FORMAT_CORRUPT", "The file is empty.", {
        remedy: "Check the download, then import it again.",
      });
    }
    return { format: "raw", sizeBytes: size, source: sourceOf(path, "raw") };
  } finally {
    await file.close();
  }
}

function sourceOf(
  path: string,
  driver: string,
  part?: { readonly offsetBytes: number; readonly lengthBytes: number },
): string {
  const file = { driver: "file", filename: path };
  const window =
    part === undefined || part.offsetBytes === 0
      ? file
      : { driver: "raw", offset: part.offsetBytes, size: part.lengthBytes, file };
  // A driver with backing files gets none, whatever the file says.
  const none = driver === "qcow2" || driver === "vmdk" ? { backing: null } : {};
  return `json:${JSON.stringify({ driver, file: window, ...none })}`;
}

/** As qemu-img reads it. */
async function diskBytes(source: string, signal: AbortSignal): Promise<number> {
  const { status, stdout, stderr } = await runQemuImg(["info", "--output=json", source], signal);
  if (status !== 0) {
    const said = lastLine(stderr) ?? `status ${status}`;
    throw new KeelsonError("FORMAT_CORRUPT", `The image can't be read: ${said}.`, {
      remedy: "Check the download, then import it again.",
    });
  }
  const sizeBytes: unknown = JSON.parse(stdout)["virtual-size"];
  if (typeof sizeBytes !== "number" || sizeBytes <= 0) {
    throw new KeelsonError("FORMAT_CORRUPT", "The disk in the image has no size.");
  }
  if (sizeBytes > maxDiskBytes) {
    throw new KeelsonError("UNSUPPORTED", "The disk in the image is larger than 64 TiB.");
  }
  return sizeBytes;
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

/** Writes the disk of a `source` to `target`, a URI that qemu-img takes, which reads as zeroes now. */
export async function convertImage(
  source: string,
  target: string,
  signal: AbortSignal,
  onPercent: (percent: number) => void,
): Promise<void> {
  const args = [
    ...["convert", "-p", "-n", "--target-is-zero", "-O", "raw"],
    // Not the default `unsafe`: the last flush must be done and its failure seen.
    ...["-t", "writeback", "-m", "8", source, target],
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
