import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { answerFileName } from "#lib/answer-file/answer-file.ts";
import { runProbe } from "./acceleration.ts";
import { machineArguments } from "./machine.ts";
import { isoFileOffset } from "./medium-file.ts";
import { flipByte, readPartitions } from "./partition-table.ts";
import { writeSeedMedium } from "./seed.ts";
import { createSegment, frameSplitter } from "./segment.ts";
import { SerialLog } from "./serial-log.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-vm-test-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function frame(text: string): Buffer {
  const bytes = Buffer.alloc(4 + text.length);
  bytes.writeUInt32BE(text.length);
  bytes.write(text, 4);
  return bytes;
}

describe("segment", () => {
  test("frames come whole whatever the cuts of the stream", () => {
    const bytes = Buffer.concat([frame("one"), frame("twotwo"), frame("3")]);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const got: string[] = [];
      const split = frameSplitter((each) => got.push(each.toString("latin1", 4)));
      expect(split(bytes.subarray(0, cut)) && split(bytes.subarray(cut))).toBe(true);
      expect(got).toEqual(["one", "twotwo", "3"]);
    }
  });

  test.each([0, 68_001, 0xffffffff])("a length of %i ends the stream", (length) => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32BE(length);
    expect(frameSplitter(() => {})(bytes)).toBe(false);
  });

  test("a frame reaches the others and not its sender", async () => {
    const segment = await createSegment(join(folder, "hub"));
    const heard = new Set<string>();
    const ports = await Promise.all(
      ["a", "b", "c"].map(
        (name) =>
          new Promise<ReturnType<typeof connect>>((resolve) => {
            const socket = connect(segment.path, () => resolve(socket));
            socket.on("data", (bytes) => heard.add(`${name}:${bytes.toString("latin1", 4, 9)}`));
          }),
      ),
    );
    // As on any Ethernet, what is sent before a port is up is lost.
    const listen = () => {
      ports[0].write(frame("hello"));
      return [...heard].sort();
    };
    await expect.poll(listen).toEqual(["b:hello", "c:hello"]);
    for (const port of ports) port.destroy();
    await segment.close();
  });
});

describe("serial log", () => {
  const log = () => new SerialLog(join(folder, "serial.log"));

  test("escapes go, also those that a read cuts in two; the prompt without line end is found", async () => {
    const serial = log();
    const found = serial.waitFor(/login: $/, 1_000);
    for (const text of ["\x1b[1;3", "1mboot\x1b[0m\r\n", "client logi", "n: "]) {
      serial.push(Buffer.from(text));
    }
    await found;
    expect(serial.text).toBe("boot\nclient login: ");
    serial.end("over");
  });

  test("a wait begins after the last match", async () => {
    const serial = log();
    serial.push(Buffer.from("ready\n"));
    await serial.waitFor(/ready/, 100);
    await expect(serial.waitFor(/ready/, 50)).rejects.toThrow(/within 0 s[\s\S]*\| ready/);
    serial.end("over");
  });

  test("a fail pattern and the machine's end finish a wait at once", async () => {
    const serial = log();
    const wait = serial.waitFor(/never/, 60_000, { fail: [/panic: .*/] });
    serial.push(Buffer.from("panic: no root\n"));
    await expect(wait).rejects.toThrow(/The machine said: panic: no root/);
    const late = serial.waitFor(/never/, 60_000);
    serial.end("QEMU ended with status 1.");
    await expect(late).rejects.toThrow(/QEMU ended with status 1/);
    await expect(serial.waitFor(/never/, 60_000)).rejects.toThrow(/QEMU ended/);
  });
});

describe("media", () => {
  test("a seed on FAT holds its answers", () => {
    const path = join(folder, "seed.img");
    writeSeedMedium(path, '{"a":1}');
    const read = spawnSync("mtype", ["-i", path, `::${answerFileName}`], { encoding: "utf8" });
    expect(read.stdout).toBe('{"a":1}');
    const label = spawnSync("mlabel", ["-s", "-i", path, "::"], { encoding: "utf8" });
    expect(label.stdout).toMatch(/KEELSONSEED/);
  });

  test("a seed on ISO 9660: the file's bytes are where the directory says", () => {
    const path = join(folder, "seed.iso");
    writeSeedMedium(path, '{"b":2}', "iso9660");
    const image = readFileSync(path);
    expect(image.toString("latin1", 16 * 2048 + 40, 16 * 2048 + 52)).toBe("KEELSON-SEED");
    // Plain ISO names are upper case and cut to 8.3; the test's file has the only .JSO.
    const { firstByte, sizeBytes } = isoFileOffset(path, "/KEELSON_.JSO");
    expect(image.toString("utf8", firstByte, firstByte + sizeBytes)).toBe('{"b":2}');
    expect(() => isoFileOffset(path, "/nothing")).toThrow(/has no \/nothing/);
  });

  test("a GPT is read: names, UUIDs, places", () => {
    const path = join(folder, "gpt.raw");
    writeFileSync(path, Buffer.alloc(4 << 20));
    const script =
      'label: gpt\nstart=2048, size=2048, name="keelson-bios", uuid=11111111-2222-3333-4444-555555555555\nname="keelson-var"\n';
    const made = spawnSync("/usr/sbin/sfdisk", ["--quiet", path], { input: script });
    expect(made.status).toBe(0);
    expect(readPartitions(path)).toMatchObject([
      {
        label: "keelson-bios",
        uuid: "11111111-2222-3333-4444-555555555555",
        firstByte: 1 << 20,
        sizeBytes: 1 << 20,
      },
      { label: "keelson-var", firstByte: 2 << 20 },
    ]);
    flipByte(path, 512);
    expect(() => readPartitions(path)).toThrow(/has no GPT/);
  });
});

test("a probe guest ends by itself under emulation", async () => {
  expect(await runProbe("tcg", 60_000)).toBe(33);
});

test("QEMU's arguments: devices in the boot order asked for, ports only on loopback", () => {
  const text = machineArguments(
    {
      ...{ name: "m", directory: folder, firmware: "bios", acceleration: "tcg", memoryMiB: 512 },
      disks: [{ path: "/d.raw", format: "raw", serial: "s", bootIndex: 1 }],
      nics: [{ mac: "52:54:00:00:00:01", forward: [{ host: 8443, guest: 443 }] }],
    },
    "/s",
  ).join(" ");
  expect(text).toMatch(/virtio-blk-pci,drive=disk0,serial=s,bootindex=1/);
  expect(text).toMatch(/user,id=net0,hostfwd=tcp:127\.0\.0\.1:8443-:443/);
  expect(text).toMatch(/-accel tcg,thread=multi,tb-size=256 -cpu max,-cx16 /);
});
