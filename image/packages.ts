/** Which Debian packages go where. Their exact versions stand in packages.lock. */

export const suite = "trixie";
export const components = ["main", "non-free-firmware"] as const;
export const architecture = "amd64";

/** Programs of the build: they run in the tools chroot, whatever the machine's own release is. */
export const toolPackages: readonly string[] = [
  // Trees and the client images of the tests.
  "mmdebstrap",
  "debian-archive-keyring",
  "fdisk",
  "rsync",
  // File systems, verity, partitions, unified kernel image.
  "e2fsprogs",
  "erofs-utils",
  "dosfstools",
  "mtools",
  "cryptsetup-bin",
  "systemd",
  "systemd-repart",
  "systemd-ukify",
  "systemd-boot-efi",
  "binutils",
  "cpio",
  "zstd",
  "xz-utils",
  "kmod",
  // Boot loaders and the hybrid ISO.
  "grub-common",
  "grub-pc-bin",
  "grub-efi-amd64-bin",
  "xorriso",
  // The addon.
  "gcc",
  "libc6-dev",
  // Firmware of the test machines.
  "ipxe",
  "ipxe-qemu",
  "ovmf",
  "qemu-utils",
  // --check-reproducible runs one of its two builds a year later.
  "faketime",
];

/** The appliance's root file system. Recommended packages are not followed. */
export const rootPackages: readonly string[] = [
  "linux-image-amd64",
  "dracut",
  "zstd",
  "systemd",
  "systemd-sysv",
  "systemd-repart",
  "systemd-cryptsetup",
  "systemd-boot",
  "systemd-boot-efi",
  "systemd-boot-tools",
  "systemd-resolved",
  "systemd-timesyncd",
  // What systemd-creds loads to seal keys with a TPM 2.0.
  "libtss2-esys-3.0.2-0t64",
  "libtss2-mu-4.0.1-0t64",
  "libtss2-rc0t64",
  "libtss2-tcti-device0t64",
  "libnss-systemd",
  "udev",
  "dbus-broker",
  "kmod",
  "dmsetup",
  "iproute2",
  "iputils-ping",
  "nftables",
  "netbase",
  "ca-certificates",
  "open-iscsi",
  "etcd-server",
  "qemu-utils",
  "ipxe",
  "erofs-utils",
  "e2fsprogs",
  "dosfstools",
  "mtools",
  "fdisk",
  "util-linux-extra",
  "login",
  "passwd",
  "tzdata",
  "less",
  // CPU microcode; firmware of common network cards.
  "amd64-microcode",
  "intel-microcode",
  "firmware-bnx2",
  "firmware-bnx2x",
  "firmware-intel-misc",
  "firmware-misc-nonfree",
  "firmware-qlogic",
  "firmware-netxen",
  "firmware-realtek",
];
