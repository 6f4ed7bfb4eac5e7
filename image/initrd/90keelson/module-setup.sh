#!/bin/bash
# dracut module: the live medium's root, an installed node's /var and machine id.

check() { return 255; } # only when named

depends() { echo systemd systemd-initrd dm; }

install() {
  inst_multiple mount umount mountpoint losetup sleep cat mkdir mv chmod modprobe tr sed readlink sync date \
    e2fsck fsck fsck.ext4 /usr/lib/systemd/systemd-veritysetup
  inst_script "$moddir/keelson-live" /usr/lib/keelson/keelson-live
  inst_script "$moddir/keelson-var" /usr/lib/keelson/keelson-var
  inst_script "$moddir/keelson-deadline" /usr/lib/keelson/keelson-deadline
  local unit
  for unit in keelson-live keelson-var keelson-deadline; do
    inst_simple "$moddir/$unit.service" "$systemdsystemunitdir/$unit.service"
  done
  $SYSTEMCTL -q --root "$initdir" add-wants initrd-root-device.target keelson-live.service
  $SYSTEMCTL -q --root "$initdir" add-wants initrd-fs.target keelson-var.service
  $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target keelson-deadline.service
}
