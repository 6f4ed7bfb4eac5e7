import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

const script = resolve(import.meta.dirname, "bin/factory-reset");
let root: string;
const at = (...names: string[]) => join(root, ...names);

/** A node's state directory, its journal, a "device" that holds a pool, and a secret-key that tells. */
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "keelson-reset-"));
  for (const folder of ["state/api", "state/network", "journal/id", "bin"]) {
    mkdirSync(at(folder), { recursive: true });
  }
  writeFileSync(at("state/api/ca.key"), "secret");
  writeFileSync(at("state/network/confirmed.json"), "{}");
  writeFileSync(at("journal/id/system.journal"), "lines");
  writeFileSync(at("device"), Buffer.alloc(3 << 20, 7));
  writeFileSync(at("bin/secret-key"), `#!/bin/sh\necho "$@" >> ${at("keys")}\n`);
  chmodSync(at("bin/secret-key"), 0o755);
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function nodeJson(): void {
  // The script takes devices below /dev alone.
  const device = `/dev/shm/${root.split("/").pop()}`;
  writeFileSync(at("state/node.json"), JSON.stringify({ store: { device } }, null, 2));
}

function run(path = process.env.PATH) {
  return spawnSync("sh", [script], {
    encoding: "utf8",
    env: {
      PATH: path,
      KEELSON_STATE: at("state"),
      KEELSON_JOURNAL: at("journal"),
      KEELSON_BIN: at("bin"),
    },
  });
}

test("without the mark nothing is touched", () => {
  nodeJson();
  expect(run().status).toBe(0);
  expect(readdirSync(at("state")).sort()).toEqual(["api", "network", "node.json"]);
  expect(existsSync(at("keys"))).toBe(false);
});

test("settings, journal and keys go; the pool stays", () => {
  nodeJson();
  writeFileSync(at("state/factory-reset.json"), '{"version":1,"erasePool":false}\n');
  const { status, stderr } = run();
  expect(status, stderr).toBe(0);
  expect(readdirSync(at("state"))).toEqual([]);
  expect(readdirSync(at("journal"))).toEqual([]);
  expect(readFileSync(at("keys"), "utf8")).toBe("destroy\n");
  expect(stderr).not.toContain("pool");
});

test("the pool's first block goes if that was asked for", () => {
  nodeJson();
  const device = JSON.parse(readFileSync(at("state/node.json"), "utf8")).store.device;
  writeFileSync(device, Buffer.alloc(3 << 20, 7));
  try {
    writeFileSync(at("state/factory-reset.json"), '{"version":1,"erasePool":true}\n');
    expect(run().status).toBe(0);
    const bytes = readFileSync(device);
    expect(bytes.subarray(0, 1 << 20).every((byte) => byte === 0)).toBe(true);
    expect(bytes.length).toBe(3 << 20);
    expect(bytes[1 << 20]).toBe(7);
  } finally {
    rmSync(device, { force: true });
  }
});

test("cut off in the middle it is done again, and still knows the pool", () => {
  nodeJson();
  writeFileSync(at("state/factory-reset.json"), '{"version":1,"erasePool":false}\n');
  writeFileSync(at("bin/secret-key"), "#!/bin/sh\nexit 1\n");
  expect(run().status).not.toBe(0);
  expect(existsSync(at("state/node.json"))).toBe(true);
  expect(existsSync(at("state/factory-reset.json"))).toBe(true);
  writeFileSync(at("bin/secret-key"), "#!/bin/sh\nexit 0\n");
  expect(run().status).toBe(0);
  expect(readdirSync(at("state"))).toEqual([]);
});
