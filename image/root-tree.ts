/** From the Debian tree to the appliance's root: our files in, the build's own tools out. */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { Release } from "#lib/bundle/release.ts";
import type { Trust } from "#lib/bundle/trust.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { runInTree, type Tools } from "./chroot.ts";
import { runCommand } from "./command.ts";

export interface ImageIdentity {
  /** `2026.11.0`, `2026.11.0+drift`. */
  readonly version: string;
  readonly drift: boolean;
  /** Signed by a throw-away key. */
  readonly developmentKey: boolean;
  /** Every time stamp of the image, in seconds. */
  readonly epoch: number;
}

export interface RootTreeInputs {
  readonly project: string;
  readonly tools: Tools;
  readonly identity: ImageIdentity;
  /** Folder with `services/` and `ui/` as tools/bundle.ts makes them. */
  readonly bundles: string;
  /** The addon, compiled by the tools; undefined: services run on their fall-backs. */
  readonly addon: string | undefined;
  readonly node: string;
  readonly sbom: string;
  /** Whose bundles the node takes. */
  readonly trust: Trust;
  readonly release: Release;
}

/** Never writable at run time, or useless there: generators and services that want to change /etc. */
const maskedUnits = [
  // Nobody logs in at the console.
  "getty@.service",
  "serial-getty@.service",
  "container-getty@.service",
  "console-getty.service",
  "autovt@.service",
  "debug-shell.service",
  // The image is complete: nothing to bring up to date at boot.
  "ldconfig.service",
  "systemd-hwdb-update.service",
  "systemd-journal-catalog-update.service",
  "systemd-update-done.service",
  "systemd-sysusers.service",
  "systemd-firstboot.service",
  "systemd-machine-id-commit.service",
  "systemd-boot-update.service",
  "systemd-repart.service",
  // keelson-firmware-updater keeps a slot, after its own gate.
  "systemd-bless-boot.service",
  // It also has the ESP mounted (units/bin/boot-disk). A second mount of the same file system, as
  // systemd-gpt-auto-generator makes one, would share the first one's owner and mode.
  "boot.automount",
  "boot.mount",
  "efi.automount",
  "efi.mount",
  "systemd-boot-random-seed.service",
  // Started by name only, by what needs them.
  "iscsid.socket",
];

/** Paths of the Debian tree that the appliance doesn't keep. */
const droppedPaths = [
  // Only --check-reproducible's second build has it.
  "usr/lib/x86_64-linux-gnu/faketime",
  "initrd.img",
  "initrd.img.old",
  "vmlinuz",
  "vmlinuz.old",
  "etc/kernel",
  "etc/dracut.conf.d",
  "usr/lib/dracut",
  "usr/lib/kernel",
  "etc/initramfs",
  "etc/apt",
  "etc/cron.d",
  "etc/cron.daily",
  "etc/init.d",
  "etc/rc0.d",
  "etc/rc1.d",
  "etc/rc2.d",
  "etc/rc3.d",
  "etc/rc4.d",
  "etc/rc5.d",
  "etc/rc6.d",
  "etc/rcS.d",
  "usr/share/bash-completion",
  "usr/share/zsh",
  "usr/share/lintian",
  "usr/share/bug",
  // Loaded from the early archive beside the initrd, never from here.
  "usr/lib/firmware/intel-ucode",
  "usr/lib/firmware/amd-ucode",
  // Names of this build or this machine.
  "etc/hostname",
  "etc/hosts",
  "etc/resolv.conf",
  "etc/machine-id",
  "etc/iscsi/initiatorname.iscsi",
  "etc/ssl/private",
  "etc/.pwd.lock",
  "etc/passwd-",
  "etc/group-",
  "etc/shadow-",
  "etc/gshadow-",
  "etc/subuid-",
  "etc/subgid-",
];

/** Turns `tree`, a copy of the base tree whose initrd is already made, into the root. */
export function completeRootTree(tree: string, inputs: RootTreeInputs): void {
  const { project, identity } = inputs;
  runInTree(tree, [
    "dpkg",
    "--purge",
    "--force-all",
    ...["dracut", "dracut-core", "dracut-install", "initramfs-tools", "linux-base"],
  ]);
  const status = join(tree, "var/lib/dpkg/status");
  const share = join(tree, "usr/share/keelson");
  mkdirSync(share, { recursive: true });
  writeText(join(share, "dpkg-status"), readFileSync(status, "utf8"));
  writeText(join(share, "sbom.spdx.json"), inputs.sbom);
  const trust = join(tree, "usr/lib/keelson/trust");
  writeText(join(trust, "trust.json"), `${JSON.stringify(inputs.trust, null, 2)}\n`);
  writeText(join(trust, "release.json"), `${JSON.stringify(inputs.release, null, 2)}\n`);
  writeText(join(share, "LICENSE"), readFileSync(join(project, "LICENSE"), "utf8"));

  for (const path of droppedPaths) rmSync(join(tree, path), { recursive: true, force: true });
  emptyFolder(join(tree, "boot"));
  // The real /var is a partition, filled by systemd-tmpfiles; the live system's starts empty too.
  emptyFolder(join(tree, "var"));
  for (const folder of ["tmp", "run", "root"]) emptyFolder(join(tree, folder));
  chmodSync(join(tree, "tmp"), 0o1777);
  mkdirSync(join(tree, "efi"), { recursive: true });

  copyInto(join(project, "image/files"), tree);
  chmodSync(join(tree, "usr/bin/keelson"), 0o755);
  installUnits(tree, project);
  installServices(tree, inputs);
  writeIdentity(tree, identity);
  enableUnits(tree, inputs.tools);
  fixAccounts(tree);
}

/**
 * Starts every program of ours inside the finished tree: a bundle that can't load, or an addon that
 * doesn't fit the tree's libc, ends the build instead of a node's boot.
 */
export function proveRootTree(tree: string, env: Readonly<Record<string, string>>): void {
  const services = join(tree, "usr/lib/keelson/services");
  const node = "/usr/lib/keelson/node";
  for (const name of readdirSync(services).sort()) {
    // `service.worker.js` is only ever loaded by its service.
    if (!/^[a-z-]+\.js$/.test(name)) continue;
    const said = runInTree(tree, [node, `/usr/lib/keelson/services/${name}`, "--help"], { env });
    if (/usage/i.test(said)) continue;
    throw new KeelsonError("INTERNAL", `${name} --help printed no usage inside the root tree.`);
  }
  if (!existsSync(join(services, "keelson.node"))) return;
  runInTree(tree, [node, "-e", "require('/usr/lib/keelson/services/keelson.node')"], { env });
}

/** Plain files with mode 0644 and folders with 0755, whatever the checkout's umask was. */
export function copyInto(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const target = join(to, entry.name);
    if (entry.isDirectory()) {
      if (!existsSync(target)) mkdirSync(target, { mode: 0o755 });
      copyInto(join(from, entry.name), target);
    } else {
      rmSync(target, { force: true });
      writeFileSync(target, readFileSync(join(from, entry.name)), { mode: 0o644 });
    }
  }
}

function writeText(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { force: true });
  writeFileSync(path, text, { mode: 0o644 });
}

function emptyFolder(path: string): void {
  mkdirSync(path, { recursive: true });
  for (const name of readdirSync(path)) rmSync(join(path, name), { recursive: true, force: true });
}

function installUnits(tree: string, project: string): void {
  const folders: [from: string, to: string][] = [
    ["units/system", "usr/lib/systemd/system"],
    ["units/sysusers.d", "usr/lib/sysusers.d"],
    ["units/tmpfiles.d", "usr/lib/tmpfiles.d"],
    ["units/udev", "usr/lib/udev/rules.d"],
    ["units/ports.d", "usr/lib/keelson/ports.d"],
    ["units/bin", "usr/lib/keelson/bin"],
  ];
  for (const [from, to] of folders) {
    if (existsSync(join(project, from))) copyInto(join(project, from), join(tree, to));
  }
  const bin = join(tree, "usr/lib/keelson/bin");
  if (!existsSync(bin)) return;
  for (const name of readdirSync(bin)) chmodSync(join(bin, name), 0o755);
}

function installServices(tree: string, inputs: RootTreeInputs): void {
  const home = join(tree, "usr/lib/keelson");
  for (const name of ["services", "ui"]) {
    if (existsSync(join(inputs.bundles, name))) {
      copyInto(join(inputs.bundles, name), join(home, name));
    }
  }
  const addon = join(home, "services/keelson.node");
  rmSync(addon, { force: true });
  if (inputs.addon !== undefined) {
    copyFileSync(inputs.addon, addon);
    chmodSync(addon, 0o644);
  }
  copyFileSync(inputs.node, join(home, "node"));
  inputs.tools.run(["strip", "--strip-all", join(home, "node")], { binds: [tree] });
  chmodSync(join(home, "node"), 0o755);
}

function writeIdentity(tree: string, identity: ImageIdentity): void {
  const { version, developmentKey, epoch } = identity;
  const kind = developmentKey ? " (development build)" : "";
  writeText(
    join(tree, "usr/lib/os-release"),
    `NAME=Keelson
ID=keelson
ID_LIKE=debian
PRETTY_NAME="Keelson ${version}${kind}"
VERSION="${version}${kind}"
VERSION_ID=${version}
VERSION_CODENAME=trixie
IMAGE_ID=keelson
IMAGE_VERSION=${version}
VARIANT_ID=${developmentKey ? "development" : "release"}
`,
  );
  // Empty: PID 1 neither treats a boot as the first one nor tries to write it; the initrd binds
  // the node's own id over it.
  writeText(join(tree, "etc/machine-id"), "");
  writeText(join(tree, "etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n");
  symlinkSync("../run/systemd/resolve/stub-resolv.conf", join(tree, "etc/resolv.conf"));
  // PID 1 sets a clock that is behind to this file's time.
  writeText(join(tree, "usr/lib/clock-epoch"), "");
  const stamp = `TIMESTAMP_NSEC=${BigInt(epoch) * 1_000_000_000n}\n`;
  writeText(join(tree, "etc/.updated"), stamp);
}

/** Debian's packages enable much at installation; the preset file is all that counts. */
function enableUnits(tree: string, tools: Tools): void {
  const etc = join(tree, "etc/systemd/system");
  emptyFolder(etc);
  tools.run(["systemctl", `--root=${tree}`, "preset-all", "--preset-mode=enable-only"], {
    binds: [tree],
  });
  for (const unit of maskedUnits) {
    rmSync(join(etc, unit), { force: true });
    symlinkSync("/dev/null", join(etc, unit));
  }
  symlinkSync("/usr/lib/systemd/system/multi-user.target", join(etc, "default.target"));
}

/** The day of a password's change is the day of the build; root gets no password at all. */
function fixAccounts(tree: string): void {
  const path = join(tree, "etc/shadow");
  const { mode } = statSync(path);
  const text = readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const fields = line.split(":");
      fields[1] = "!*";
      fields[2] = "1";
      return `${fields.join(":")}\n`;
    })
    .join("");
  writeFileSync(path, text);
  chmodSync(path, mode & 0o7777);
}

/** A copy with owners, modes, links and holes; the two must not be on different trees. */
export function copyTree(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  mkdirSync(dirname(to), { recursive: true });
  runCommand("cp", ["--archive", "--reflink=auto", from, to]);
}
