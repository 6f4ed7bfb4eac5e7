import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, expect, test } from "vitest";

const startTimeoutMs = 60_000;
const states: string[] = [];
const children: ChildProcess[] = [];

afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const state of states.splice(0)) rmSync(state, { recursive: true, force: true });
});

function newState(): string {
  const state = mkdtempSync(join(tmpdir(), "keelson-dev-"));
  states.push(state);
  return state;
}

function startDev(state: string, ...args: string[]): ChildProcess {
  const child = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", "tools/dev.ts", "--state", state, ...args],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  children.push(child);
  return child;
}

function firstLine(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    createInterface({ input: child.stdout! }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`npm run dev ended with ${code}`)));
  });
}

function exitCode(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => child.once("exit", (code) => resolve(code)));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited 30 s for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

test("dev says in one line of JSON what it serves; a killed service comes back; SIGTERM ends all", {
  timeout: 3 * startTimeoutMs,
}, async () => {
  const dev = startDev(newState(), "--json", "--volume", "scratch:64M", "--volume", "other:1G");
  const ready = JSON.parse(await firstLine(dev));

  expect(ready).toMatchObject({
    ready: true,
    http: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    boot: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    iscsi: {
      portal: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      targets: [
        {
          iqn: expect.stringMatching(/^iqn\./),
          lun: 0,
          volume: "scratch",
          sizeBytes: 64 * 2 ** 20,
        },
        { iqn: expect.stringMatching(/^iqn\./), lun: 0, volume: "other", sizeBytes: 2 ** 30 },
      ],
    },
  });
  expect(Object.keys(ready.pids).sort()).toEqual(["api", "chunk-store", "iscsi-target", "netboot"]);
  const ping = await fetch(`${ready.http}/api/v1/ping`);
  expect(await ping.json()).toEqual({ status: "ok" });

  const [target] = ready.iscsi.targets;
  const url = `iscsi://${ready.iscsi.portal}/${target.iqn}/${target.lun}`;
  const sees = () => spawnSync("iscsi-readcapacity16", [url], { timeout: 10_000 }).status === 0;
  expect(sees()).toBe(true);

  process.kill(ready.pids["iscsi-target"], "SIGKILL");
  await until("the portal's return", sees);
  process.kill(ready.pids["chunk-store"], "SIGKILL");
  await until("the store's end", () => !isAlive(ready.pids["chunk-store"]));
  await until("the store's return", sees);

  dev.kill("SIGTERM");
  expect(await exitCode(dev)).toBe(0);
  for (const pid of Object.values<number>(ready.pids)) expect(isAlive(pid)).toBe(false);
});

test("volumes and password of an earlier run are there again", {
  timeout: 3 * startTimeoutMs,
}, async () => {
  const state = newState();
  const first = startDev(state, "--json", "--volume", "scratch:64M");
  const before = JSON.parse(await firstLine(first));
  first.kill("SIGTERM");
  await exitCode(first);

  const second = startDev(state, "--json", "--volume", "scratch:64M");
  const after = JSON.parse(await firstLine(second));
  expect(after.iscsi.targets).toEqual(before.iscsi.targets);
  second.kill("SIGTERM");
  expect(await exitCode(second)).toBe(0);
});

test.each([
  [["--volume", "scratch"], "write it like scratch:10G"],
  [["--volume", "scratch:lots"], "write it like scratch:10G"],
  [["--http-port", "70000"], "is not a port"],
  [["--nonsense"], "nonsense"],
])("refuses %j with a message and no stack trace", async (args, message) => {
  const dev = startDev(newState(), ...args);
  let said = "";
  dev.stderr!.on("data", (chunk) => {
    said += chunk;
  });
  expect(await exitCode(dev)).toBe(2);
  expect(said).toContain(message);
  expect(said).not.toMatch(/\n\s+at /);
});
