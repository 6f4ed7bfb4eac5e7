import { expect, test } from "vitest";
import { formatDuration } from "#lib/model/duration.ts";
import { answersPlace, kernelParameter } from "./answers.ts";
import { readListing } from "./disks.ts";
import { createProgress } from "./progress.ts";

test.each([
  ["ro keelson.answers=http://h/a quiet", "http://h/a"],
  ['keelson.answers="http://h/a b" x', "http://h/a b"],
  ["keelson.answers=one keelson.answers=two", "two"],
  ["xkeelson.answers=one", undefined],
  ["keelson.answers= ", ""],
])("kernel line %j", (line, value) => {
  expect(kernelParameter(line, "keelson.answers")).toBe(value);
});

const base64 = Buffer.from('{"version":1}').toString("base64");
test.each([
  ["http://h/a.json", { kind: "url", url: "http://h/a.json" }],
  ["https://h/a.json", { kind: "url", url: "https://h/a.json" }],
  ["/run/x.json", { kind: "file", path: "/run/x.json" }],
  [base64, { kind: "inline", text: '{"version":1}' }],
])("place %s", (value, place) => {
  expect(answersPlace(value)).toEqual(place);
});

test.each(["ftp://h/a", "", "bm90IGpzb24=", "{}"])("place %j is refused", (value) => {
  expect(() => answersPlace(value)).toThrow(/neither an http\(s\) URL, a path, nor base64/);
});

test("lsblk's listing: disks, media, partitions, pools", () => {
  const output = JSON.stringify({
    blockdevices: [
      { path: "/dev/sr0", type: "rom", size: 1, ro: false },
      { path: "/dev/loop0", type: "loop", size: 1, ro: true },
      { path: "/dev/zram0", type: "disk", size: 0, ro: false },
      {
        ...{ path: "/dev/vda", type: "disk", size: "8589934592", ro: "0", pttype: "gpt" },
        ...{ model: "QEMU  ", serial: "s1" },
        children: [
          {
            path: "/dev/vda1",
            type: "part",
            size: 7,
            ro: false,
            partlabel: "keelson-var",
            fstype: "ext4",
          },
          { path: "/dev/vda2", type: "part", size: 9, ro: false, partuuid: "u2" },
        ],
      },
      { path: "/dev/sda", type: "disk", size: 5, ro: true, fstype: "iso9660", label: "KEELSON" },
      { path: "/dev/sdb", type: "disk", size: 5, ro: false, fstype: "vfat", label: "KEELSONSEED" },
      {
        ...{ path: "/dev/sdc", type: "disk", size: 5, ro: false },
        children: [
          {
            path: "/dev/sdc1",
            type: "part",
            size: 5,
            ro: false,
            fstype: "ext4",
            label: "KEELSON-SEED",
          },
        ],
      },
    ],
  });
  const disks = readListing(output, {
    probe: (path) => (path === "/dev/vda2" ? { id: "p", name: "" } : undefined),
    links: new Map([["/dev/vda", ["/dev/disk/by-id/virtio-s1"]]]),
  });
  expect(disks.map(({ path, medium }) => [path, medium])).toEqual([
    ["/dev/sda", true],
    ["/dev/sdb", true],
    ["/dev/sdc", true],
    ["/dev/vda", false],
  ]);
  expect(disks[3]).toMatchObject({
    sizeBytes: 8 * 2 ** 30,
    model: "QEMU",
    readOnly: false,
    links: ["/dev/disk/by-id/virtio-s1"],
    content: [
      { path: "/dev/vda1", label: "keelson-var", fileSystem: "ext4", pool: undefined },
      { path: "/dev/vda2", partitionUuid: "u2", pool: { id: "p" } },
    ],
  });
});

test("progress: a line each 5 percent, with the time left by the speed so far", () => {
  const lines: string[] = [];
  let nowMs = 0;
  const progress = createProgress({
    totalBytes: 1000,
    print: (line) => lines.push(line),
    nowMs: () => nowMs,
  });
  progress.step("writing");
  for (let i = 0; i < 20; i++) {
    nowMs += 1000;
    progress.advance(10);
  }
  expect(lines).toEqual([
    "    0 %  writing",
    "    5 %  writing, 1 min 35 s left",
    "   10 %  writing, 1 min 30 s left",
    "   15 %  writing, 1 min 25 s left",
    "   20 %  writing, 1 min 20 s left",
  ]);
});

test.each([
  [0, "0 s"],
  [59_400, "59 s"],
  [190_000, "3 min 10 s"],
  [7_500_000, "2 h 5 min"],
])("%i ms is %s", (durationMs, text) => {
  expect(formatDuration(durationMs)).toBe(text);
});
