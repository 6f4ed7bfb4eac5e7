#!/bin/sh
# Runs inside the freshly installed base tree: drops what no node of this product can use.
set -eu
version=$(ls /usr/lib/modules)
modules=/usr/lib/modules/$version/kernel

# Sound, cameras, wireless, and the drivers of graphics cards: a console needs the firmware's
# framebuffer only.
rm -rf $modules/sound $modules/drivers/media $modules/drivers/bluetooth $modules/net/bluetooth \
  $modules/drivers/net/wireless $modules/net/mac80211 $modules/net/wireless $modules/drivers/staging \
  $modules/drivers/iio $modules/drivers/input/joystick $modules/drivers/input/touchscreen \
  $modules/drivers/gpu/drm/amd $modules/drivers/gpu/drm/radeon $modules/drivers/gpu/drm/nouveau \
  $modules/drivers/gpu/drm/i915 $modules/drivers/gpu/drm/xe $modules/drivers/gpu/drm/vmwgfx \
  $modules/drivers/net/can $modules/net/can $modules/drivers/isdn $modules/net/nfc $modules/drivers/nfc \
  $modules/fs/ocfs2 $modules/fs/gfs2 $modules/fs/ceph $modules/net/ceph $modules/fs/bcachefs
depmod "$version"

# Firmware that none of the remaining modules asks for. `firmware:` lines may hold a glob.
find $modules -name '*.ko*' -print0 | xargs -0 modinfo --field firmware | sort -u >/tmp/wanted
cd /usr/lib/firmware
find . \( -type f -o -type l \) | sed 's|^\./||' | sort >/tmp/present
while read -r name; do
  for path in $name $name.xz $name.zst; do
    [ ! -e "$path" ] || { echo "$path"; [ ! -L "$path" ] || realpath --relative-to=. "$path"; }
  done
done </tmp/wanted | sort -u >/tmp/kept
# Microcode goes into its own early archive beside the initrd; the module list names none of it.
grep -E '^(amd-ucode|intel-ucode)/' /tmp/present >>/tmp/kept
sort -u -o /tmp/kept /tmp/kept
comm -23 /tmp/present /tmp/kept | tr '\n' '\0' | xargs -0 rm -f
find . -depth -type d -empty -delete
