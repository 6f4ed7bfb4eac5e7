import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { VolumeId } from "#lib/model/ids.ts";
import { SecretBox } from "#lib/seal/secret-box.ts";
import { createLog } from "#lib/service/log.ts";
import { MemoryExecutor } from "#lib/volume/memory-executor.ts";
import { StoreNetServer } from "#lib/volume/store-net-server.ts";
import { LoginStatus, loginLayout } from "#lib/wire/iscsi/pdu.ts";
import { formatText } from "#lib/wire/iscsi/text.ts";
import { createApi } from "./api.ts";
import { IscsiTarget } from "./target.ts";

const volumeId = "00000000-0000-4000-8000-000000000001" as VolumeId;
const entry = {
  id: "disk",
  iqn: "iqn.2026-11.org.example:disk",
  volumeId,
  initiators: ["iqn.2026-11.org.example:client"],
};

let folder: string;
let store: StoreNetServer;
let executor: MemoryExecutor;
let box = new SecretBox(randomBytes(32));
const targets: IscsiTarget[] = [];

async function start(portal = { host: "127.0.0.1", port: 0 }): Promise<IscsiTarget> {
  const target = await IscsiTarget.start({
    stateDir: folder,
    storeRun: folder,
    portals: [portal],
    native: false,
    version: "test",
    box,
    log: createLog("test", { JOURNAL_STREAM: "" }),
    fail: (error) => {
      throw error;
    },
  });
  targets.push(target);
  return target;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "iscsi-target-"));
  executor = new MemoryExecutor();
  executor.volumes.set(volumeId, new Uint8Array(1 << 20));
  store = new StoreNetServer(executor);
  await store.listen(join(folder, "ring.sock"));
});

afterEach(async () => {
  for (const target of targets.splice(0)) await target.stop();
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Calls the API as its client would; the body and the status. */
async function call(target: IscsiTarget, method: string, path: string, body?: unknown) {
  const app = createApi(target, (error) => {
    throw error;
  });
  const response = await app.request(path, {
    method,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, never> };
}

async function eventually(holds: () => Promise<boolean>): Promise<void> {
  for (let count = 0; count < 200; count++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error("it never came to be");
}

/** Status of a log-in to the disk over a real socket. */
function login(portal: string): Promise<number> {
  const [host, port] = portal.split(":");
  return new Promise((resolve, reject) => {
    const text = formatText([
      ["InitiatorName", entry.initiators[0]],
      ["TargetName", entry.iqn],
    ]);
    const bhs = loginLayout.encode({
      opcode: 0x43,
      flags: 0x87,
      isid: Uint8Array.of(0x80, 0, 0, 0, 0, 1),
      dataSegmentLength: text.length,
      initiatorTaskTag: 1,
      cmdSN: 1,
    });
    const padded = new Uint8Array((text.length + 3) & ~3);
    padded.set(text);
    const socket = connect(Number(port), host, () => socket.write(Buffer.concat([bhs, padded])));
    socket.once("data", (bytes: Buffer) => {
      socket.destroy();
      resolve((bytes[36] << 8) | bytes[37]);
    });
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("closed")));
  });
}

describe("control API", () => {
  test("what is put is served, and is there after a restart without anybody putting it", async () => {
    const target = await start();
    const put = await call(target, "PUT", "/v1/exports", { generation: 3, exports: [entry] });
    expect(put).toEqual({ status: 200, body: { generation: 3, sessionsEnded: 0 } });
    const { portals } = await target.status();
    expect(await login(portals[0])).toBe(0);
    await target.stop();
    targets.length = 0;

    const again = await start();
    const { generation, driver } = await again.status();
    expect([generation, driver]).toEqual([3, "net"]);
    expect(await login((await again.status()).portals[0])).toBe(0);
    await eventually(async () => (await again.exports()).exports[0].volumeState === "ready");
    expect((await again.exports()).exports[0].sizeBytes).toBe(1 << 20);
  });

  test("an older generation is refused and changes nothing, neither served nor kept", async () => {
    const target = await start();
    await call(target, "PUT", "/v1/exports", { generation: 3, exports: [entry] });
    const kept = readFileSync(join(folder, "exports.json"), "utf8");
    const stale = await call(target, "PUT", "/v1/exports", { generation: 2, exports: [] });
    expect([stale.status, stale.body.code]).toEqual([409, "STALE_GENERATION"]);
    expect((await target.exports()).exports).toHaveLength(1);
    expect(readFileSync(join(folder, "exports.json"), "utf8")).toBe(kept);
  });

  test("secrets are sealed in the state file, mode 0600, and in no answer", async () => {
    const target = await start();
    const secret = "a secret of this test";
    const chap = { user: "u", secret, mutualUser: "t", mutualSecret: `${secret} 2` };
    await call(target, "PUT", "/v1/exports", { generation: 1, exports: [{ ...entry, chap }] });
    expect(statSync(join(folder, "exports.json")).mode & 0o777).toBe(0o600);
    for (const name of readdirSync(folder)) {
      if (name.endsWith(".sock")) continue;
      expect(readFileSync(join(folder, name), "utf8"), name).not.toContain(secret);
    }
    for (const path of ["/v1/exports", "/v1/sessions", "/v1/status"]) {
      const { body } = await call(target, "GET", path);
      expect(JSON.stringify(body)).not.toContain(secret);
    }
    expect(await login((await target.status()).portals[0])).toBe(LoginStatus.authenticationFailure);
  });

  test.each([
    ["no generation", { exports: [] }],
    ["a name that isn't one", { generation: 1, exports: [{ ...entry, iqn: "disk" }] }],
    [
      "a short secret",
      { generation: 1, exports: [{ ...entry, chap: { user: "u", secret: "short" } }] },
    ],
    [
      "one secret both ways",
      {
        generation: 1,
        exports: [
          {
            ...entry,
            chap: {
              user: "u",
              secret: "the same secret",
              mutualUser: "t",
              mutualSecret: "the same secret",
            },
          },
        ],
      },
    ],
    ["two exports of one name", { generation: 1, exports: [entry, { ...entry, id: "other" }] }],
    ["what nobody knows", { generation: 1, exports: [{ ...entry, colour: "red" }] }],
  ])("%s is refused with a reason", async (_name, body) => {
    const target = await start();
    const answer = await call(target, "PUT", "/v1/exports", body);
    expect([answer.status, answer.body.code]).toEqual([400, "INVALID_ARGUMENT"]);
    expect(String(answer.body.title).length).toBeGreaterThan(10);
    expect((await target.exports()).generation).toBe(0);
  });

  test("events tell of a log-in", async () => {
    const target = await start();
    await call(target, "PUT", "/v1/exports", { generation: 1, exports: [entry] });
    const app = createApi(target, () => {});
    const response = await app.request("/v1/events");
    const reader = response.body!.getReader();
    const next = async () => Buffer.from((await reader.read()).value!).toString();
    expect(await next()).toContain('"sessions":[]');
    const { portals } = await target.status();
    await login(portals[0]);
    let seen = "";
    await eventually(async () => {
      seen += await next();
      return seen.includes("iqn.2026-11.org.example:client");
    });
    await reader.cancel();
  });
});

describe("start", () => {
  test("a port in use is named, with what to do", async () => {
    const target = await start();
    const [, port] = (await target.status()).portals[0].split(":");
    await expect(start({ host: "127.0.0.1", port: Number(port) })).rejects.toMatchObject({
      code: "PORT_IN_USE",
      message: expect.stringContaining(`127.0.0.1:${port}`),
    });
  });

  test("a state file that can't be read stops the start and shows no secret", async () => {
    writeFileSync(
      join(folder, "exports.json"),
      JSON.stringify({
        version: 1,
        put: { generation: 1, exports: [{ ...entry, chap: "hush-hush" }] },
      }),
    );
    const error = await start().catch((caught: Error) => caught);
    expect(error).toMatchObject({ code: "FORMAT_CORRUPT" });
    expect(String((error as Error).message)).not.toContain("hush");
  });

  test("a state file of a later version is not guessed at", async () => {
    writeFileSync(join(folder, "exports.json"), JSON.stringify({ version: 3, sealed: "later" }));
    await expect(start()).rejects.toMatchObject({
      code: "FORMAT_UNKNOWN",
      message: expect.stringContaining("has format 3; this version reads up to 2"),
    });
  });

  const restart = async () => {
    for (const target of targets.splice(0)) await target.stop();
    return start();
  };
  const statePath = () => join(folder, "exports.json");
  const chap = { user: "u", secret: "planted secret 1" };

  test("what an older release kept in plain text is served, and sealed from then on", async () => {
    const put = { generation: 4, exports: [{ ...entry, chap }] };
    writeFileSync(statePath(), JSON.stringify({ version: 1, put }));
    expect((await (await start()).exports()).generation).toBe(4);
    expect(readFileSync(statePath(), "utf8")).not.toContain(chap.secret);
    expect((await (await restart()).exports()).exports).toHaveLength(1);
  });

  test("sealed with another key: it starts with nothing and takes what api puts", async () => {
    const put = { generation: 4, exports: [{ ...entry, chap }] };
    await call(await start(), "PUT", "/v1/exports", put);
    box = new SecretBox(randomBytes(32));
    const target = await restart();
    expect(await target.exports()).toEqual({ generation: 0, exports: [] });
    expect((await call(target, "PUT", "/v1/exports", put)).status).toBe(200);
    expect((await (await restart()).exports()).generation).toBe(4);
  });

  test("a state file that was tampered with stops the start", async () => {
    await call(await start(), "PUT", "/v1/exports", { generation: 1, exports: [entry] });
    const { sealed, version } = JSON.parse(readFileSync(statePath(), "utf8"));
    const at = sealed.length - 5;
    const flipped = sealed.slice(0, at) + (sealed[at] === "A" ? "B" : "A") + sealed.slice(at + 1);
    writeFileSync(statePath(), JSON.stringify({ version, sealed: flipped }));
    await expect(restart()).rejects.toMatchObject({ code: "FORMAT_CORRUPT" });
  });

  test("the store may come later", async () => {
    await store.stop();
    const target = await start();
    await call(target, "PUT", "/v1/exports", { generation: 1, exports: [entry] });
    expect((await target.status()).store).toBe("unreachable");
    expect((await target.exports()).exports[0].volumeState).toBe("storeUnreachable");
    rmSync(join(folder, "ring.sock"), { force: true });
    store = new StoreNetServer(executor);
    await store.listen(join(folder, "ring.sock"));
    await eventually(async () => (await target.exports()).exports[0].volumeState === "ready");
    expect(await login((await target.status()).portals[0])).toBe(0);
  });
});
