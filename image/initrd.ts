/** The initrd, made once in a copy of the base tree, and the early archive with CPU microcode. */
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { runInTree, type Tools } from "./chroot.ts";
import { report } from "./command.ts";
import { copyInto } from "./root-tree.ts";

export interface InitrdInputs {
  readonly project: string;
  readonly cache: string;
  readonly tools: Tools;
  /** Name of the base tree that `tree` is a copy of: part of the cache key. */
  readonly base: string;
  readonly epoch: number;
  /** True: make it even if the cache has one. */
  readonly fresh: boolean;
  readonly env: Readonly<Record<string, string>>;
}

export interface BootFiles {
  readonly kernelVersion: string;
  readonly kernel: string;
  readonly initrd: string;
  readonly microcode: string;
}

/** Writes vmlinuz, initrd and microcode to `out`. `tree` still has dracut and is changed. */
export function makeBootFiles(tree: string, out: string, inputs: InitrdInputs): BootFiles {
  const [kernelVersion] = readdirSync(join(tree, "usr/lib/modules"));
  mkdirSync(out, { recursive: true });
  const files = {
    kernelVersion,
    kernel: join(out, "vmlinuz"),
    initrd: join(out, "initrd"),
    microcode: join(out, "microcode"),
  };
  copyFileSync(join(tree, "boot", `vmlinuz-${kernelVersion}`), files.kernel);
  const cached = join(inputs.cache, "initrds", initrdKey(inputs));
  if (!inputs.fresh && existsSync(cached)) {
    copyFileSync(join(cached, "initrd"), files.initrd);
    copyFileSync(join(cached, "microcode"), files.microcode);
    return files;
  }
  report("making the initrd");
  const module = join(tree, "usr/lib/dracut/modules.d/90keelson");
  copyInto(join(inputs.project, "image/initrd/90keelson"), module);
  for (const name of ["module-setup.sh", "keelson-live", "keelson-var", "keelson-deadline"]) {
    chmodSync(join(module, name), 0o755);
  }
  const configuration = readFileSync(join(inputs.project, "image/initrd/dracut.conf"));
  writeFileSync(join(tree, "usr/lib/dracut/keelson.conf"), configuration);
  const env = { ...inputs.env, SOURCE_DATE_EPOCH: String(inputs.epoch) };
  runInTree(tree, ["sh", "-c", initrdScript, "sh", kernelVersion], { env });
  copyFileSync(join(tree, "var/tmp/initrd"), files.initrd);
  copyFileSync(join(tree, "var/tmp/microcode"), files.microcode);
  if (!inputs.fresh) {
    const work = `${cached}.${process.pid}`;
    mkdirSync(work, { recursive: true });
    for (const path of [files.initrd, files.microcode]) {
      copyFileSync(path, join(work, basename(path)));
    }
    rmSync(cached, { recursive: true, force: true });
    renameSync(work, cached);
  }
  return files;
}

function initrdKey(inputs: InitrdInputs): string {
  const digest = createHash("sha256").update(`${basename(inputs.base)} ${inputs.epoch}`);
  const folder = join(inputs.project, "image/initrd");
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    if (/(\.conf|\.sh|\.service|keelson-[a-z]+)$/.test(name)) {
      digest.update(name).update(readFileSync(join(folder, name)));
    }
  }
  return digest
    .update(readFileSync(join(inputs.project, "image/initrd.ts")))
    .digest("hex")
    .slice(0, 16);
}

// The kernel takes microcode only from an uncompressed archive before the initrd proper.
const initrdScript = `set -eu
mkdir -p /var/tmp /tmp/none
# The library of the reproducibility check's clock is nothing that a program needs.
if [ -n "\${LD_PRELOAD:-}" ]; then
  printf '#!/bin/sh\\nunset LD_PRELOAD\\nexec /usr/bin/ldd "$@"\\n' >/tmp/ldd
  chmod 755 /tmp/ldd
  export DRACUT_LDD=/tmp/ldd
fi
dracut --force --quiet --conf /usr/lib/dracut/keelson.conf --confdir /tmp/none --tmpdir /tmp \
  --kver "$1" /var/tmp/initrd
early=/tmp/early/kernel/x86/microcode
mkdir -p $early
find /usr/lib/firmware/intel-ucode -type f ! -name 'list' | sort | xargs cat >$early/GenuineIntel.bin
find /usr/lib/firmware/amd-ucode -name 'microcode_amd*.bin' | sort | xargs cat >$early/AuthenticAMD.bin
cd /tmp/early
find . -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0 >/var/tmp/microcode
# An initrd without its libraries is quick to make and boots nothing.
for name in libc.so.6 libsystemd-shared libcryptsetup.so veritysetup keelson-var e2fsck erofs.ko; do
  zstd -qdc /var/tmp/initrd | cpio --quiet -t | grep -q "$name" || { echo "the initrd lacks $name" >&2; exit 1; }
done`;
