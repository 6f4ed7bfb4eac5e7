/** The status screen on a serial line, with the real API behind it. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { hashPassword } from "#lib/password/password.ts";
import { DevApi } from "#tools/dev-api.ts";
import { PtyLine } from "./pty.ts";

const project = resolve(import.meta.dirname, "../..");
const oldPassword = "the old password";
const newPassword = "a new one, longer";
const down = "\x1b[B";

let folder: string;
let line: PtyLine;
let url: string;
const children: ChildProcess[] = [];

async function start(service: string, arguments_: readonly string[]) {
  const main = join(project, "services", service, "main.ts");
  const child = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", main, ...arguments_],
    {
      stdio: ["ignore", "ignore", "ignore", "ipc"],
      env: { ...process.env, KEELSON_NODE_NAME: "keelson-7" },
    },
  );
  children.push(child);
  return await new Promise<{ addresses: Record<string, string> }>((done, failed) => {
    child.once("message", (message) => done(message as never));
    child.once("exit", (code) => failed(new Error(`${service} ended with ${code}`)));
  });
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "keelson-status-"));
  mkdirSync(join(folder, "state"));
  const hash = join(folder, "admin.hash");
  writeFileSync(hash, `${hashPassword(oldPassword)}\n`);
  writeFileSync(join(folder, "node.env"), "KEELSON_NODE_NAME=keelson-7\n");
  writeFileSync(
    join(folder, "state/node.json"),
    JSON.stringify({ name: "keelson-7", adminHash: hashPassword(oldPassword) }),
  );
  const api = await start("api", [
    ...[
      "--state",
      join(folder, "api-state"),
      "--run",
      join(folder, "api"),
      "--http",
      "127.0.0.1:0",
    ],
    ...["--store-run", join(folder, "s"), "--iscsi-run", join(folder, "i")],
    ...["--netboot-run", join(folder, "n"), "--admin-password-hash-file", hash],
  ]);
  url = api.addresses.http;
  line = await PtyLine.open();
  await start("console", [
    ...["--run", folder, "--state", join(folder, "state"), "--line", line.path],
  ]);
});

afterAll(async () => {
  for (const child of children.reverse()) {
    const ended = new Promise((done) => child.once("close", done));
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGTERM");
      await ended;
    }
  }
  await line?.close();
  rmSync(folder, { recursive: true, force: true });
});

async function openMenu(row: string, page: RegExp): Promise<void> {
  await line.see(/\[ Menu \]/);
  line.type("\r");
  await line.see(/Factory reset/);
  for (let presses = 0; presses < 12; presses++) {
    if (line.lines.some((text) => text.startsWith(` >  ${row}`))) break;
    const before = line.text;
    line.type(down);
    await expect.poll(() => line.text).not.toBe(before);
  }
  line.type("\r");
  await line.see(page);
}

test("name, health and version are shown", async () => {
  await line.see(/Keelson .* keelson-7$/m, 30_000);
  await line.see(/Health +\S/);
  await line.see(/Version/);
});

test("the password is reset: the old one and its session end, the audit log tells of it", async () => {
  const before = await DevApi.logIn(url, oldPassword);
  await openMenu("Password reset", /New password +\[/);
  line.type(`${newPassword}\rsomething else\r`);
  await line.see(/\[ \] Also remove/);
  line.type(`${down}\r`);
  await line.see(/! The two passwords are not the same/);
  line.type(`\x15${newPassword}\r`);
  line.type(`${down}\r`);
  await line.see(/admin has a new password/, 30_000);
  expect(line.received).not.toContain(newPassword);
  await expect(before.node()).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  await expect(DevApi.logIn(url, oldPassword)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  const after = await DevApi.logIn(url, newPassword);
  const { entries } = await after.call<{ entries: { action: string; via: string }[] }>(
    "GET",
    "/audit",
  );
  expect(entries).toContainEqual(
    expect.objectContaining({ action: "reset the password of admin", via: "console" }),
  );
  line.type("\x1b");
  await line.see(/Health/);
});

test("a support bundle is downloaded once, by its address, and holds no hash", async () => {
  // While it looks for sticks, keys are not taken.
  await openMenu("Support bundle", /Plug in a USB stick|Make it, on /);
  line.type("\r");
  const [, token] = await line.see(/support-bundle\/([2-9a-z]{20})/, 170_000);
  const answer = await fetch(`${url}/api/v1/support-bundle/${token}`);
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-disposition")).toMatch(/keelson-7-support-.*\.tar\.gz/);
  const text = gunzipSync(Buffer.from(await answer.arrayBuffer())).toString("latin1");
  expect(text).toContain('"name": "keelson-7"');
  expect(text).toContain("journal.txt");
  expect(text).not.toMatch(/\$argon2id\$/);
  expect((await fetch(`${url}/api/v1/support-bundle/${token}`)).status).toBe(404);
  line.type("\x1b");
  await line.see(/Factory reset/);
  line.type("\x1b");
  await line.see(/Health/);
});

test("the shell wants admin's password", async () => {
  await openMenu("Shell", /Password of admin/);
  line.type("a guess\r\r");
  await line.see(/Wrong user name or password/, 30_000);
  line.type("\x1b");
  await line.see(/Factory reset/);
  line.type("\x1b");
  await line.see(/Health/);
});

test("the factory reset wants the node's name", async () => {
  await openMenu("Factory reset", /Name of this node/);
  line.type(`other\r${down}\r`);
  await line.see(/! Type keelson-7 to reset this node/);
  line.type("\x1b");
  await line.see(/Shut down/);
  line.type("\x1b");
  await line.see(/Health/);
});
