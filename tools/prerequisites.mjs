// Debian packages each command needs on the machine that runs it (Debian 12 or 13, amd64).
import { spawnSync } from "node:child_process";

const addon = ["gcc", "libc6-dev"];
// qa/powercut: a disk whose power can go.
const fuse = ["libfuse3-dev", "pkg-config", "fuse3"];
const tree = ["mmdebstrap", "debian-archive-keyring"];
const guest = ["qemu-system-x86", "qemu-utils", "ovmf", "ipxe-qemu", "iproute2"];
const disks = ["fdisk", "mtools", "dosfstools", "e2fsprogs", "xorriso"];
const clients = [
  "libiscsi-bin",
  "tftp-hpa",
  "isc-dhcp-client",
  "dnsmasq-base",
  "ipxe",
  "qemu-utils",
  "qemu-block-extra",
];

/** @type {Record<string, string[]>} */
const needs = {
  check: addon,
  dev: [...addon, "qemu-utils"],
  sim: addon,
  image: [...addon, ...tree],
  lab: [...addon, ...fuse, ...guest, ...clients],
  vm: [...addon, ...tree, ...guest, ...disks, "chromium-headless-shell", "nmap", "swtpm"],
  appliance: [...addon, ...tree, ...guest, ...disks],
  peers: [
    ...addon,
    "tgt",
    "libiscsi-bin",
    "libiscsi-dev",
    "fio",
    "qemu-utils",
    // qemu-storage-daemon
    "qemu-system-common",
  ],
  test: [
    ...addon,
    ...fuse,
    ...tree,
    ...guest,
    ...disks,
    ...clients,
    "libiscsi-dev",
    "nftables",
    "etcd-server",
    "openssl",
    "chromium-headless-shell",
  ],
};

/** Packages that `command` needs and dpkg does not have installed. */
export function missingDebianPackages(command) {
  const wanted = [...new Set(needs[command] ?? [])];
  if (wanted.length === 0) return [];
  const query = spawnSync(
    "dpkg-query",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query expands it.
    ["-W", "-f", "${Package} ${db:Status-Status}\n", ...wanted],
    {
      encoding: "utf8",
    },
  );
  const installed = new Set(
    (query.stdout ?? "")
      .split("\n")
      .filter((line) => line.endsWith(" installed"))
      .map((line) => line.split(" ")[0]),
  );
  return wanted.filter((name) => !installed.has(name));
}
