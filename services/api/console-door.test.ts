import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { EmbeddedStore } from "#lib/cluster-store/embedded.ts";
import { hashPassword, verifyPassword } from "#lib/password/password.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import { Sessions } from "./access.ts";
import { newUser } from "./account-records.ts";
import { createConsoleApp } from "./console-door.ts";
import { Downloads } from "./downloads.ts";
import { Policy } from "./policy.ts";

let nowMs = 0;
const clock = {
  bootMs: () => nowMs,
  now: () => new Date(Date.UTC(2026, 10, 21) + nowMs).toISOString(),
};
let folder: string;
let policy: Policy;
let sessions: Sessions;
let downloads: Downloads;
let app: ReturnType<typeof createConsoleApp>;

beforeEach(async () => {
  nowMs = 0;
  folder = mkdtempSync(join(tmpdir(), "keelson-door-"));
  policy = await Policy.open(new EmbeddedStore(":memory:"));
  await policy.change((draft) => {
    draft.put("user", newUser("admin", hashPassword("old password"), clock.now()));
    draft.put("user", newUser("eve", hashPassword("eve's own"), clock.now()));
    for (const user of ["admin", "eve"]) {
      draft.put("session", {
        ...{ id: `of-${user}`, user, createdAt: clock.now(), expiresAt: "2027-01-01T00:00:00Z" },
        ...{ how: "password", address: "192.0.2.1" },
      });
    }
  });
  sessions = new Sessions(policy, clock);
  downloads = new Downloads(folder, clock);
  const views = { node: () => ({ name: "keelson-1" }) };
  const conditions = { list: () => [] };
  app = createConsoleApp(
    {
      policy,
      sessions,
      downloads,
      audit: { record: async () => {} },
      clock,
      views,
      conditions,
      leafFingerprint: () => "AB:CD",
    } as never,
    (error) => {
      throw error;
    },
  );
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const post = (path: string, body: object) =>
  app.request(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });

test("a reset sets admin's password and ends admin's sessions, nobody else's", async () => {
  expect((await post("/v1/admin-password", { password: "new password" })).status).toBe(204);
  expect(await verifyPassword("new password", policy.get("user", "admin").passwordHash!)).toBe(
    true,
  );
  expect(policy.list("session").map(({ user }) => user)).toEqual(["eve"]);
  expect(await verifyPassword("eve's own", policy.get("user", "eve").passwordHash!)).toBe(true);
});

test("a second factor goes only if that was asked for", async () => {
  const totp = { secret: "A", confirmedAt: clock.now(), lastStep: 0, recoveryDigests: [] };
  await policy.change((draft) => {
    draft.put("user", { ...policy.get("user", "admin"), totp });
    for (const user of ["admin", "eve"]) {
      draft.put("security-key", {
        ...{ id: `key-of-${user}`, user, name: "Key", rpId: "keelson.example.org" },
        ...{ publicKey: "AAAA", counter: 0, transports: [], discoverable: true, backedUp: false },
        ...{ createdAt: clock.now(), lastUsedAt: null, suspectedAt: null },
      });
    }
  });
  await post("/v1/admin-password", { password: "new password" });
  expect(policy.get("user", "admin").totp).not.toBeNull();
  expect(policy.list("security-key")).toHaveLength(2);
  await post("/v1/admin-password", { password: "new password", removeSecondFactor: true });
  expect(policy.get("user", "admin").totp).toBeNull();
  expect(policy.list("security-key").map(({ user }) => user)).toEqual(["eve"]);
});

test.each([{ password: "short" }, { password: 5 }, {}, { password: "long enough", user: "eve" }])(
  "%j is refused and changes nothing",
  async (body) => {
    const answer = await post("/v1/admin-password", body);
    expect(answer.status).toBe(400);
    expect(await verifyPassword("old password", policy.get("user", "admin").passwordHash!)).toBe(
      true,
    );
  },
);

test("the shell's password is checked, and guesses are slowed down", async () => {
  expect((await post("/v1/admin-password/check", { password: "old password" })).status).toBe(204);
  const codes: number[] = [];
  for (let i = 0; i < 7; i++) {
    codes.push((await post("/v1/admin-password/check", { password: "guess" })).status);
  }
  expect(codes.slice(0, 5)).toEqual([401, 401, 401, 401, 401]);
  expect(codes.at(-1)).toBe(429);
});

test("a support bundle is given once, and only to who has the token", async () => {
  writeFileSync(join(folder, "a.tar.gz"), "bundle");
  const { token } = (await (await post("/v1/support-bundle", { file: "a.tar.gz" })).json()) as {
    token: string;
  };
  expect(token).toMatch(/^[2-9a-hjkmnp-z]{20}$/);
  expect(() => downloads.take("x".repeat(20))).toThrow(/used up, too old, or mistyped/);
  const { file, sizeBytes, body } = downloads.take(token);
  expect([file, sizeBytes]).toEqual(["a.tar.gz", 6]);
  expect(await new Response(body).text()).toBe("bundle");
  expect(() => downloads.take(token)).toThrow(/used up/);
  await expect.poll(() => readdirSync(folder)).toEqual([]);
});

test("after a quarter of an hour, and for a file elsewhere, there is nothing", async () => {
  writeFileSync(join(folder, "a.tar.gz"), "bundle");
  const token = downloads.offer("a.tar.gz");
  nowMs = 16 * 60_000;
  expect(() => downloads.take(token)).toThrow(/too old/);
  for (const file of ["../secret", "none.tar.gz", "/etc/shadow"]) {
    expect((await post("/v1/support-bundle", { file })).status, file).toBeGreaterThanOrEqual(400);
  }
});

test("the socket is for root alone", async () => {
  const path = join(folder, "console.sock");
  const listener = await serveUnix(app, path, 0o600);
  try {
    expect(statSync(path).mode & 0o777).toBe(0o600);
  } finally {
    await listener.close();
  }
});
