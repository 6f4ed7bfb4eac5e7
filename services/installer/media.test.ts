import { expect, test } from "vitest";
import { readMedia } from "./media.ts";
import { randomPassword } from "./password.ts";

test("answers can be saved on sticks that can be written, and on nothing else", () => {
  const part = (path: string, more: object) => ({
    ...{ path, size: 100, ro: false, rm: true, hotplug: true, fstype: "vfat", label: null },
    ...more,
  });
  const output = JSON.stringify({
    blockdevices: [
      part("/dev/sda", { fstype: null, children: [part("/dev/sda1", { label: "STICK" })] }),
      part("/dev/sdb", { label: "KEELSON", fstype: "iso9660" }),
      part("/dev/sdc", { ro: true }),
      part("/dev/sdd", { fstype: "ntfs" }),
      part("/dev/vda", {
        ...{ rm: false, hotplug: false, fstype: null },
        children: [part("/dev/vda1", { rm: false, hotplug: false, fstype: "ext4" })],
      }),
      part("/dev/sde", {
        ...{ rm: false, hotplug: false, fstype: null, tran: "usb" },
        children: [
          part("/dev/sde1", { rm: false, hotplug: false, label: "CASE", tran: null }),
          part("/dev/sde2", { fstype: "ext4", partlabel: "keelson-var" }),
        ],
      }),
      part("/dev/vdb", { rm: false, hotplug: false, label: "KEELSONSEED" }),
    ],
  });
  expect(readMedia(output)).toEqual([
    { device: "/dev/sda1", label: "STICK", sizeBytes: 100 },
    { device: "/dev/sde1", label: "CASE", sizeBytes: 100 },
    { device: "/dev/vdb", label: "KEELSONSEED", sizeBytes: 100 },
  ]);
});

test("a password that is made up can be typed from a screen, and is another one each time", () => {
  const made = new Set(Array.from({ length: 200 }, randomPassword));
  expect(made.size).toBe(200);
  for (const password of made)
    expect(password).toMatch(/^(?:[2-9a-hjkmnp-z]{4}-){4}[2-9a-hjkmnp-z]{4}$/);
});
