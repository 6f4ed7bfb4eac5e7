/** From a finished root tree to what goes on the medium: erofs, verity, UKI, loaders, partitions. */
import { createHash } from "node:crypto";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { grubSlotConfig, ukiFileName } from "#lib/bundle/manifest.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Tools } from "./chroot.ts";
import { bootSector, coreImage, grubEnvironment } from "./grub.ts";
import type { BootFiles } from "./initrd.ts";
import type { ImageIdentity } from "./root-tree.ts";

const mebibyte = 1 << 20;
/** What repart.d demands at least, and the two partition tables. */
const minimumDiskBytes = (1 + 512 + 2 * (1024 + 32) + 2048 + 1024 + 2) * mebibyte;
const slotBytes = 1024 * mebibyte;

export interface MediumInputs {
  readonly project: string;
  readonly tools: Tools;
  readonly identity: ImageIdentity;
  readonly tree: string;
  readonly boot: BootFiles;
  /** Environment of every program: SOURCE_DATE_EPOCH, the check's false clock. */
  readonly env: Readonly<Record<string, string>>;
  readonly mutation?: ImageMutation | undefined;
}

/**
 * Changes made on purpose, for the tests of what happens when a release is bad or brings other boot
 * loaders (qa/vm). Nothing of `npm run image` can ask for them.
 */
export interface ImageMutation {
  /** Changes the finished root tree before it becomes an image. */
  readonly root?: (tree: string) => void;
  /** The kernel line of the installed slot. */
  readonly kernelLine?: (line: string) => string;
  /** Text of files that are laid over the initrd's, by path; mode 0755. */
  readonly initrd?: Readonly<Record<string, string>>;
  /** Changes root.img after its hash tree was made. */
  readonly rootImage?: (path: string) => void;
  /** Changes the boot loaders in the medium's folder `keelson`. */
  readonly loaders?: (folder: string) => void;
}

/** `image.json` on the medium; docs/formats/image.md. */
export interface ImageDescription {
  readonly product: "keelson";
  readonly version: string;
  readonly rootHash: string;
  readonly rootSizeBytes: number;
  readonly veritySizeBytes: number;
  readonly rootPartitionUuid: string;
  readonly verityPartitionUuid: string;
  readonly uki: string;
  readonly minimumDiskBytes: number;
  readonly developmentKey: boolean;
  readonly drift: boolean;
}

/** A UUID that is the same in every build of a version, from what it names. */
export function fixedUuid(...names: string[]): string {
  const hex = createHash("sha256").update(names.join("\0")).digest("hex");
  return uuidOf(`${hex.slice(0, 12)}8${hex.slice(13, 16)}8${hex.slice(17, 32)}`);
}

/** 32 hexadecimal digits with dashes. */
export function uuidOf(hex: string): string {
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20, 32),
  ].join("-");
}

const commonLine = [
  "root=/dev/mapper/root ro rootfstype=erofs",
  // An emulated machine needs minutes for what a real one does in seconds.
  "systemd.default_device_timeout_sec=300",
  "systemd.getty_auto=no",
  "console=tty0 console=ttyS0,115200 systemd.show_status=error loglevel=5 panic=10 rd.shell=0",
].join(" ");

/**
 * Of an installed slot: what hangs or falls restarts, so that the boot loader's counter decides.
 * `gpt`: the second partition table counts when a power cut left the first one half written.
 */
const installedLine = [
  "systemd.verity_root_options=panic-on-corruption rd.emergency=reboot gpt",
  "systemd.crash_action=reboot systemd.watchdog_sec=180 keelson.initrd_deadline=900",
].join(" ");

/** Kernel line of an installed slot: the root is found by its hash, and only that root. */
export function diskLine(rootHash: string): string {
  return `${commonLine} roothash=${rootHash} ${installedLine}`;
}

/** diskLine, as a mutation may have changed it. */
export function slotLine(rootHash: string, mutation?: ImageMutation): string {
  return mutation?.kernelLine?.(diskLine(rootHash)) ?? diskLine(rootHash);
}

/** Appends an archive to the initrd: the kernel unpacks one after the other. */
function overlayInitrd(
  tools: Tools,
  initrd: string,
  files: Readonly<Record<string, string>>,
): void {
  const folder = `${initrd}.overlay`;
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text, { mode: 0o755 });
  }
  const script =
    'cd "$0"; find . -exec touch -h -d @0 {} +; find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0 | zstd -q >>"$1"';
  tools.run(["sh", "-ec", script, folder, initrd], { binds: [dirname(initrd)] });
}

/** Kernel line of the live system. */
export function liveLine(rootHash: string): string {
  return `${commonLine} keelson.live keelson.roothash=${rootHash} systemd.volatile=overlay systemd.unit=keelson-install.target rd.emergency=halt`;
}

function fillIn(text: string, values: Readonly<Record<string, string>>): string {
  return text.replaceAll(/@([A-Z_]+)@/g, (whole, name: string) => values[name] ?? whole);
}

/** Fills `medium` (empty): the tree that becomes the ISO. */
export function makeMedium(medium: string, inputs: MediumInputs): ImageDescription {
  const { project, tools, identity, boot, env, mutation } = inputs;
  const keelson = join(medium, "keelson");
  for (const folder of [
    "repart.d",
    "grub",
    "esp/EFI/BOOT",
    "esp/EFI/Linux",
    "esp/loader",
    "esp/keelson/a",
    "esp/keelson/b",
  ]) {
    mkdirSync(join(keelson, folder), { recursive: true });
  }
  const root = join(keelson, "root.img");
  const verity = join(keelson, "root.verity");
  const binds = [dirname(medium), dirname(inputs.tree), dirname(boot.initrd)];
  const run = (command: readonly string[]) => tools.run(command, { env, binds });
  run([
    "mkfs.erofs",
    ...["-zlz4hc,level=9", "-C65536", `-T${identity.epoch}`, "--all-time"],
    ...["-U", fixedUuid("root", identity.version), "--quiet", root, inputs.tree],
  ]);
  const rootSizeBytes = statSync(root).size;
  if (rootSizeBytes > slotBytes) {
    throw new KeelsonError("NO_SPACE", "The root image doesn't fit into a slot of 1 GiB.");
  }
  const rootHash = makeVerity(run, root, verity, identity);
  const [rootPartitionUuid, verityPartitionUuid] = [rootHash.slice(0, 32), rootHash.slice(32)].map(
    uuidOf,
  );

  mutation?.rootImage?.(root);
  if (mutation?.initrd !== undefined) overlayInitrd(tools, boot.initrd, mutation.initrd);

  const kernelLine = slotLine(rootHash, mutation);
  const uki = ukiFileName(identity.version);
  const osRelease = join(inputs.tree, "usr/lib/os-release");
  run([
    "ukify",
    "build",
    `--linux=${boot.kernel}`,
    `--microcode=${boot.microcode}`,
    `--initrd=${boot.initrd}`,
    `--uname=${boot.kernelVersion}`,
    `--os-release=@${osRelease}`,
    `--cmdline=${kernelLine}`,
    `--output=${join(keelson, "esp/EFI/Linux", uki)}`,
  ]);
  const esp = (...names: string[]) => join(keelson, "esp", ...names);
  const systemdBoot = join(tools.tree, "usr/lib/systemd/boot/efi/systemd-bootx64.efi");
  copyFileSync(systemdBoot, esp("EFI/BOOT/BOOTX64.EFI"));
  writeFileSync(esp("loader/loader.conf"), "timeout 3\nconsole-mode keep\neditor no\n");
  writeFileSync(esp("keelson/grub.cfg"), readFileSync(join(project, "image/boot/disk.cfg")));
  writeFileSync(
    esp("keelson/grubenv"),
    grubEnvironment({ ORDER: "a b", a_OK: "0", a_TRY: "3", b_OK: "0", b_TRY: "0" }),
  );
  for (const name of ["kernel", "microcode", "initrd"] as const) {
    copyFileSync(boot[name], esp("keelson/a", name === "kernel" ? "vmlinuz" : name));
  }
  writeFileSync(esp("keelson/a/slot.cfg"), grubSlotConfig("a", kernelLine));
  writeFileSync(esp("keelson/b/EMPTY"), "This slot holds no system yet.\n");
  writeFileSync(join(keelson, "grub/boot.img"), bootSector(tools));
  writeFileSync(join(keelson, "grub/core.img"), coreImage(tools, medium));
  mutation?.loaders?.(keelson);

  const values = {
    VERSION: identity.version,
    ROOT_UUID: rootPartitionUuid,
    VERITY_UUID: verityPartitionUuid,
    LINE: liveLine(rootHash),
  };
  const definitions = join(project, "image/repart.d");
  for (const name of readdirSync(definitions).sort()) {
    const text = readFileSync(join(definitions, name), "utf8");
    writeFileSync(join(keelson, "repart.d", name), fillIn(text, values));
  }
  mkdirSync(join(medium, "boot/grub"), { recursive: true });
  const menu = readFileSync(join(project, "image/boot/iso.cfg"), "utf8");
  writeFileSync(join(medium, "boot/grub/grub.cfg"), fillIn(menu, values));

  const description: ImageDescription = {
    product: "keelson",
    version: identity.version,
    rootHash,
    rootSizeBytes,
    veritySizeBytes: statSync(verity).size,
    rootPartitionUuid,
    verityPartitionUuid,
    uki,
    minimumDiskBytes,
    developmentKey: identity.developmentKey,
    drift: identity.drift,
  };
  const files = fileHashes(keelson, ["esp", "grub", "repart.d"]);
  writeFileSync(
    join(keelson, "image.json"),
    `${JSON.stringify({ ...description, files }, null, 2)}\n`,
  );
  return description;
}

/** sha256 by path of what the root's hash tree doesn't cover: the installer checks them. */
function fileHashes(base: string, folders: readonly string[]): Record<string, string> {
  const paths = folders
    .flatMap((folder) =>
      readdirSync(join(base, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => relative(base, join(entry.parentPath, entry.name))),
    )
    .sort();
  return Object.fromEntries(
    paths.map((path) => [
      path,
      createHash("sha256")
        .update(readFileSync(join(base, path)))
        .digest("hex"),
    ]),
  );
}

function makeVerity(
  run: (command: readonly string[]) => string,
  root: string,
  verity: string,
  identity: ImageIdentity,
): string {
  const salt = createHash("sha256").update(`keelson root ${identity.version}`).digest("hex");
  const said = run([
    "veritysetup",
    "format",
    `--salt=${salt}`,
    `--uuid=${fixedUuid("verity", identity.version)}`,
    root,
    verity,
  ]);
  const rootHash = /^Root hash:\s+([0-9a-f]{64})$/m.exec(said)?.[1];
  if (rootHash === undefined) {
    throw new KeelsonError("INTERNAL", `veritysetup printed no root hash:\n${said}`);
  }
  return rootHash;
}
