/** A release that is to be bad must be bad, else the scenario that survives it shows nothing. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { diskLine } from "#image/artefacts.ts";
import { brokenKinds, mutations } from "./broken-release.ts";

let tree = "";
beforeEach(() => {
  tree = mkdtempSync(join(tmpdir(), "keelson-broken-"));
  for (const folder of ["usr/lib/keelson/services", "usr/lib/keelson/bin", "etc/systemd/system"]) {
    mkdirSync(join(tree, folder), { recursive: true });
  }
  writeFileSync(join(tree, "usr/lib/keelson/services/package.json"), '{ "type": "module" }');
});
afterEach(() => rmSync(tree, { recursive: true, force: true }));

/** A service of that name in the tree, broken, started; its first line of output. */
async function startBroken(name: string, kind: (typeof brokenKinds)[number], code: string) {
  const path = join(tree, "usr/lib/keelson/services", `${name}.js`);
  writeFileSync(path, code);
  mutations[kind].root!(tree);
  const service = spawn(process.execPath, [path], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(service.stdout, "data");
  return { service, line: String(line).trim() };
}

test("api-answers-500: over HTTP/1 and HTTP/2, whatever the service would say", async () => {
  const { service, line } = await startBroken(
    "api",
    "api-answers-500",
    `import { createServer } from "node:http";
import { createServer as createHttp2 } from "node:http2";
const answer = (_, response) => response.end("well");
const one = createServer(answer).listen(0, "127.0.0.1", () => {
  const two = createHttp2({}, answer).listen(0, "127.0.0.1", () => {
    console.log(one.address().port + " " + two.address().port);
  });
});`,
  );
  try {
    const [one, two] = line.split(" ");
    expect((await fetch(`http://127.0.0.1:${one}/`)).status).toBe(500);
    const session = connect(`http://127.0.0.1:${two}`);
    const [headers] = await once(session.request({ ":path": "/" }), "response");
    session.destroy();
    expect(headers[":status"]).toBe(500);
  } finally {
    service.kill();
  }
});

test("service-crash-loops: it starts as if nothing were wrong, then ends with an error", async () => {
  // The twenty seconds pass at once here.
  const quick = `globalThis.setTimeout = (callback) => setImmediate(callback);\n`;
  const path = join(tree, "usr/lib/keelson/services/iscsi-target.js");
  writeFileSync(path, 'console.log("ready"); process.stdin.resume();');
  mutations["service-crash-loops"].root!(tree);
  expect(readFileSync(path, "utf8")).toContain("20000");
  writeFileSync(path, quick + readFileSync(path, "utf8"));
  const service = spawn(process.execPath, [path], { stdio: ["pipe", "pipe", "inherit"] });
  const [output] = await once(service.stdout, "data");
  expect(String(output)).toBe("ready\n");
  const [code] = await once(service, "exit");
  expect(code).toBe(1);
});

test("network-stays-down: systemd-networkd can't be started by anything", () => {
  mutations["network-stays-down"].root!(tree);
  for (const type of ["service", "socket"]) {
    const unit = join(tree, "etc/systemd/system", `systemd-networkd.${type}`);
    expect(readlinkSync(unit)).toBe("/dev/null");
  }
});

test("health-gate-hangs: what judges the new version never starts, but answers the image build", () => {
  const path = join(tree, "usr/lib/keelson/services/firmware-updater.mjs");
  const real = path.replace(".mjs", ".js");
  writeFileSync(real, 'console.log("Usage: firmware-updater");');
  mutations["health-gate-hangs"].root!(tree);
  writeFileSync(path, readFileSync(real));
  const asked = spawnSync(process.execPath, [path, "--help"], { encoding: "utf8" });
  expect(asked.stdout).toContain("Usage");
  const started = spawnSync(process.execPath, [path], { encoding: "utf8", timeout: 2000 });
  expect(started.stdout).toBe("");
  expect(started.signal).toBe("SIGTERM");
});

test("root-fails-verity: one byte of the first block differs", () => {
  const image = join(tree, "root.img");
  const before = Buffer.alloc(8192, 5);
  writeFileSync(image, before);
  mutations["root-fails-verity"].rootImage!(image);
  const after = readFileSync(image);
  expect(after.length).toBe(before.length);
  expect([...after].flatMap((byte, at) => (byte === before[at] ? [] : [at]))).toEqual([1024]);
});

test("kernel-panics and initrd-hangs keep the line's root hash", () => {
  const line = diskLine("ab".repeat(32));
  expect(mutations["kernel-panics"].kernelLine!(line)).toBe(`${line} rdinit=/no-such-init`);
  expect(mutations["initrd-hangs"].initrd!["usr/lib/keelson/keelson-var"]).toContain("sleep");
});

test("every kind changes something", () => {
  for (const kind of brokenKinds) expect(Object.keys(mutations[kind])).not.toHaveLength(0);
});
