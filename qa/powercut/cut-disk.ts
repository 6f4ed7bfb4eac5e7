/** The FUSE file system `cutfs.c` as an object: a store's file on a disk whose power can go. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

const source = join(import.meta.dirname, "cutfs.c");
const folder = join(import.meta.dirname, "../../build/qa");

/** Compiles cutfs.c when it is newer than the program. */
function compile(): string {
  const program = join(folder, "cutfs");
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program;
  mkdirSync(folder, { recursive: true });
  const flags = spawnSync("pkg-config", ["--cflags", "--libs", "fuse3"], { encoding: "utf8" });
  const next = `${program}.${process.pid}`;
  const options = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", next, source];
  const result = spawnSync("gcc", [...options, ...(flags.stdout ?? "").trim().split(/\s+/)], {
    encoding: "utf8",
  });
  if (flags.status !== 0 || result.status !== 0) {
    throw new KeelsonError("UNAVAILABLE", `${source} did not compile: ${result.stderr ?? ""}`, {
      operation: "compile",
      object: source,
      remedy: "Install gcc, pkg-config and libfuse3-dev.",
    });
  }
  renameSync(next, program);
  return program;
}

export class CutDisk {
  readonly mountPoint: string;
  private readonly child: ChildProcess;

  private constructor(mountPoint: string, child: ChildProcess) {
    this.mountPoint = mountPoint;
    this.child = child;
  }

  /** Mounts on `mountPoint`; `durable` is the file that the disk keeps. */
  static async mount(
    durable: string,
    mountPoint: string,
    swallowFlushes: boolean,
  ): Promise<CutDisk> {
    mkdirSync(mountPoint, { recursive: true });
    const options = swallowFlushes ? ["--swallow-flushes"] : [];
    const child = spawn(compile(), [...options, durable, mountPoint], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let errors = "";
    child.stderr!.on("data", (text) => {
      errors += text;
    });
    const disk = new CutDisk(mountPoint, child);
    for (let waitedMs = 0; !existsSync(join(mountPoint, "control")); waitedMs += 20) {
      if (child.exitCode !== null || waitedMs > 10_000) {
        child.kill();
        throw new KeelsonError("UNAVAILABLE", `Cannot mount on ${mountPoint}: ${errors.trim()}`, {
          remedy: "It needs /dev/fuse and root, or fusermount3 (fuse3).",
        });
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return disk;
  }

  get file(): string {
    return join(this.mountPoint, "store.img");
  }

  /** The power goes: keeps each unflushed sector with `keepPercent`. Gives what happened, as text. */
  cut(seed: number, keepPercent: number): string {
    const control = join(this.mountPoint, "control");
    writeFileSync(control, `cut ${seed} ${keepPercent}`);
    return readFileSync(control, "utf8").trim();
  }

  /** Unmounts at once, for a process that is about to end. */
  abandon(): void {
    spawnSync("fusermount3", ["-u", "-z", this.mountPoint]);
    this.child.kill("SIGKILL");
  }

  async unmount(): Promise<void> {
    if (this.child.exitCode !== null) return;
    const exited = new Promise((resolve) => this.child.once("exit", resolve));
    spawnSync("fusermount3", ["-u", "-z", this.mountPoint]);
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 3000);
    await exited;
    clearTimeout(timer);
  }
}
