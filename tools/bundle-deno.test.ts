/**
 * The bundles run under Deno too: proof that they use what Node and Deno share, and nothing that
 * only a source tree has. Each service that can is started and asked; what can't is named with why.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { sha512Crypt } from "#lib/password/password.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import { bundleConsole, bundleServices, serviceEntries } from "./bundle.ts";

const run = promisify(execFile);
const deno = resolve(import.meta.dirname, "../node_modules/@deno/linux-x64-glibc/deno");
const scratch = mkdtempSync(join(tmpdir(), "keelson-deno-"));
const bundles = join(scratch, "services");
const startTimeoutMs = 20_000;

/** Not started here, with the reason; `--help` is still asked of each under Deno. */
const notStarted: Record<string, string> = {
  console: "takes the machine's terminals; it is started on a pty, under Node",
  "firmware-updater": "writes to the boot disk's slots; it is started over files, under Node",
  installer: "erases disks; it is started in a virtual machine, under Node",
  "node-setup": "writes to /etc and /run of the machine; it is started in a virtual machine",
  keelson: "is a client: --help is its start",
  network: "sets up the machine's links; it is started in namespaces, under Node",
};

/**
 * What a service does without under Deno. The addon itself loads there, but the threads that wait
 * in it take their messages by receiveMessageOnPort(parentPort), and Deno's parentPort is not a
 * MessagePort; so both data paths run on their fall-back, slower and the same in what they do.
 */
const withoutAddon = ["--no-native"];

const running: ChildProcess[] = [];

beforeAll(async () => {
  await bundleServices({ outDir: bundles });
  await bundleConsole({ outDir: join(scratch, "ui") });
});

afterEach(stopAll);

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

/** Starts a bundle under Deno and waits until `ready` gives something; throws with its log if not. */
async function start<Answer>(
  name: string,
  args: readonly string[],
  ready: () => Promise<Answer>,
): Promise<Answer> {
  const child = spawn(deno, ["run", "-A", join(bundles, `${name}.js`), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.push(child);
  let log = "";
  child.stdout.on("data", (text) => (log += text));
  child.stderr.on("data", (text) => (log += text));
  const deadline = Date.now() + startTimeoutMs;
  let last: unknown;
  while (Date.now() < deadline && child.exitCode === null) {
    try {
      return await ready();
    } catch (error) {
      last = error;
      await new Promise((done) => setTimeout(done, 100));
    }
  }
  throw new Error(`${name} did not get ready under Deno: ${String(last)}\n${log}`);
}

function place(root: string, name: string): string[] {
  return ["--state", join(root, name), "--run", join(root, "run", name)];
}

async function ask(socket: string, path: string): Promise<Record<string, unknown>> {
  const response = await unixFetch(socket)(`http://unix${path}`);
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, unknown>;
}

function startStore(root: string, extra = withoutAddon): Promise<Record<string, unknown>> {
  const socket = join(root, "run/chunk-store/api.sock");
  const store = ["--device", join(root, "store.img"), "--create", "256M"];
  return start("chunk-store", [...place(root, "chunk-store"), ...store, ...extra], () =>
    ask(socket, "/v1/status"),
  );
}

async function stopAll(): Promise<void> {
  for (const child of running.splice(0).reverse()) {
    if (child.exitCode !== null) continue;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill("SIGTERM");
    await ended;
  }
}

test("every service is started here, or says why not", () => {
  const started = ["api", "chunk-store", "iscsi-target", "netboot"];
  expect(serviceEntries().map(({ name }) => name)).toEqual(
    [...started, ...Object.keys(notStarted)].sort(),
  );
});

test.for(serviceEntries())("$name answers --help under Deno", async ({ name }) => {
  const { stdout } = await run(deno, ["run", "-A", join(bundles, `${name}.js`), "--help"]);
  expect(stdout).toMatch(/usage/i);
});

describe("started under Deno", () => {
  test("netboot answers a client over HTTP and api over its socket", async () => {
    const root = mkdtempSync(join(scratch, "netboot-"));
    const port = await freePort();
    const status = await start(
      "netboot",
      [...place(root, "netboot"), "--http", `127.0.0.1:${port}`, "--no-dhcp", "--tftp-port", "0"],
      () => ask(join(root, "run/netboot/api.sock"), "/v1/status"),
    );
    expect(status).toMatchObject({ generation: 0, http: { port } });
    const script = await fetch(`http://127.0.0.1:${port}/boot.ipxe?mac=52:54:00:12:34:56`);
    expect(await script.text()).toMatch(/^#!ipxe\n/);
  });

  test("chunk-store makes a store in a file, and finds its volume again after a restart", async () => {
    const root = mkdtempSync(join(scratch, "store-"));
    const socket = join(root, "run/chunk-store/api.sock");
    const path = "/v1/volumes/4c4c4544-0042-4810-8054-b7c04f463132";
    await startStore(root);
    const made = await unixFetch(socket)(`http://unix${path}`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ sizeBytes: 1 << 30 }),
    });
    expect(made.ok).toBe(true);
    await stopAll();
    await startStore(root);
    expect(await ask(socket, path)).toMatchObject({ sizeBytes: 1 << 30 });
  });

  test("the exception still holds: with the addon, chunk-store ends with Deno's reason", async () => {
    const root = mkdtempSync(join(scratch, "addon-"));
    await expect(startStore(root, [])).rejects.toThrow(/MessagePort/);
  });

  test("iscsi-target listens and reaches a store that runs under Deno too", async () => {
    const root = mkdtempSync(join(scratch, "target-"));
    const port = await freePort();
    await startStore(root);
    const target = [
      ...["--store-run", join(root, "run/chunk-store")],
      ...["--portal", `127.0.0.1:${port}`],
    ];
    await start(
      "iscsi-target",
      [...place(root, "iscsi-target"), ...target, ...withoutAddon],
      async () => {
        const status = await ask(join(root, "run/iscsi-target/api.sock"), "/v1/status");
        expect(status).toMatchObject({ driver: "net", store: "connected" });
      },
    );
    await new Promise<void>((done, failed) => {
      const probe = connect(port, "127.0.0.1");
      probe.once("error", failed);
      probe.once("connect", () => {
        probe.destroy();
        done();
      });
    });
  });

  test("api checks a password, keeps policy, and serves the console", async () => {
    const root = mkdtempSync(join(scratch, "api-"));
    const port = await freePort();
    const hashFile = join(root, "hash");
    // Deno's node:crypto has no argon2: there api works with SHA-512 crypt, as from an answer file.
    writeFileSync(hashFile, sha512Crypt("a good password", "saltsalt", null), { mode: 0o600 });
    const base = `http://127.0.0.1:${port}`;
    await start(
      "api",
      [
        ...place(root, "api"),
        ...["--http", `127.0.0.1:${port}`],
        ...["--store-run", join(root, "run/chunk-store")],
        ...["--iscsi-run", join(root, "run/iscsi-target")],
        ...["--netboot-run", join(root, "run/netboot")],
        ...["--cluster-store", `sqlite:${join(root, "policy.sqlite")}`],
        ...["--admin-password-hash-file", hashFile],
        ...["--ui", join(scratch, "ui")],
      ],
      async () => expect((await fetch(`${base}/api/v1/ping`)).status).toBe(200),
    );
    const logIn = (password: string) =>
      fetch(`${base}/api/v1/session`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ user: "admin", password }),
      });
    expect((await logIn("a wrong password")).status).toBe(401);
    const session = await logIn("a good password");
    expect(session.status).toBe(200);
    const { token } = (await session.json()) as { token: string };
    const node = await fetch(`${base}/api/v1/node`, {
      headers: { authorization: `Bearer ${token}` },
    });
    expect(await node.json()).toMatchObject({ version: expect.any(String) });
    const page = await fetch(base);
    expect(await page.text()).toBe(readFileSync(join(scratch, "ui/index.html"), "utf8"));
  });
});
