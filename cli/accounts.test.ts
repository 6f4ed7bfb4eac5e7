/** `keelson user|role|token|session|totp|audit` against the real service. */
import { spawn } from "node:child_process";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Secret, TOTP } from "otpauth";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { password, TestNode } from "#services/api/platform.fixture.ts";
import { keelsonOf, runKeelson } from "./run.fixture.ts";

const node = new TestNode();
beforeAll(() => node.start());
afterAll(() => node.remove());

const run = (args: readonly string[], input = "", environment = {}) =>
  runKeelson(node, args, input, environment);
const keelson = (...args: string[]) => keelsonOf(node, ...args);
const path = (name: string) => join(node.state, name);

describe("users, roles and tokens", () => {
  test("a user with a role of its own, from the password on standard input to the end", async () => {
    await keelson("role", "add", "looker", "--permission", "storage:read");
    const added = await run(
      ["user", "add", "anna", "--role", "looker", "--password-stdin", "--keep-password"],
      "a password of anna\n",
    );
    expect(added.stdout).toBe("anna may log in.\n");
    expect(await keelson("user")).toMatch(/^anna +- +looker +active/m);
    expect(await keelson("role")).toMatch(/^looker +no +anna +storage:read/m);
    const refused = await run(["role", "delete", "looker"]);
    expect(refused).toMatchObject({ status: 1, stdout: "" });
    expect(refused.stderr).toMatch(/These users have the role looker: anna/);
    await keelson("user", "disable", "anna");
    const out = await run(
      ["login", node.http, "--user", "anna", "--password-stdin"],
      "a password of anna\n",
      { KEELSON_TOKEN: "" },
    );
    expect(out.stderr).toBe("keelson: Wrong user name or password.\n");
    await keelson("user", "delete", "anna");
    expect(await keelson("user")).not.toContain("anna");
  });

  test("without a terminal and without --password-stdin nothing is guessed", async () => {
    const { status, stderr } = await run(["user", "add", "bert"]);
    expect(status).toBe(2);
    expect(stderr).toContain("--password-stdin");
    // There is no way to give one as an argument.
    expect((await run(["user", "add", "bert", "--password", "x"])).status).toBe(2);
  });

  test("a token is printed alone, works for its scope, and is revoked", async () => {
    const made = await run(["token", "create", "ci", "--permission", "storage:read"]);
    const token = made.stdout.trim();
    expect(token).toMatch(/^keelson_[0-9A-Za-z]{48}$/);
    expect(made.stderr).toContain("not shown again");
    const environment = { KEELSON_TOKEN: token };
    expect((await run(["volumes"], "", environment)).status).toBe(0);
    const refused = await run(["clients"], "", environment);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(/no permission netboot:read. These roles have it: admin/);
    expect((await run(["whoami"], "", environment)).stdout).toMatch(/^may +storage:read$/m);
    const [{ id }] = JSON.parse(await keelson("token", "--json"));
    await keelson("token", "revoke", id);
    expect((await run(["volumes"], "", environment)).status).toBe(1);
    expect(
      (await run(["token", "create", "x", "--permission", "node:read", "--days", "400"])).status,
    ).toBe(2);
  });

  test("log-in with a second factor; sessions are listed and ended", async () => {
    await run(
      ["user", "add", "carl", "--role", "read-only", "--password-stdin", "--keep-password"],
      "a password of carl\n",
    );
    const token = await node.logIn("carl", "a password of carl");
    const environment = { KEELSON_TOKEN: token };
    const enrol = await run(
      ["totp", "enrol", "--password-stdin"],
      "a password of carl\n",
      environment,
    );
    const [secret, url] = enrol.stdout.split("\n");
    expect(url).toMatch(/^otpauth:\/\/totp\//);
    const totp = new TOTP({ secret: Secret.fromBase32(secret) });
    const confirmed = await run(["totp", "confirm", totp.generate()], "", environment);
    const [recovery, ...rest] = confirmed.stdout.trim().split("\n");
    expect(rest).toHaveLength(9);
    const login = ["login", node.http, "--user", "carl", "--password-stdin"];
    const without = await run(login, "a password of carl\n", { KEELSON_TOKEN: "" });
    expect(without.status).toBe(2);
    expect(without.stderr).toContain("asks for a code too");
    const good = await run(login, `a password of carl\n${recovery}\n`, { KEELSON_TOKEN: "" });
    expect(good.stdout).toContain("as carl");
    expect(await keelson("session", "--user", "carl")).toMatch(/127\.0\.0\.1 +recovery-code/);
    await keelson("session", "end", "--all", "--user", "carl");
    expect(await keelson("session", "--user", "carl")).toBe("No sessions.\n");
    await keelson("user", "reset-totp", "carl");
    expect((await run(login, "a password of carl\n", { KEELSON_TOKEN: "" })).status).toBe(0);
  });

  test("names are completed", async () => {
    expect(await keelson("__complete", "--", "user", "delete", "ad")).toBe("admin\n");
    expect(await keelson("__complete", "--", "user", "add", "x", "--role", "ope")).toBe(
      "operator\n",
    );
    expect(await keelson("__complete", "--", "role", "add", "x", "--permission", "audit:r")).toBe(
      "audit:read\n",
    );
  });
});

describe("audit", () => {
  test("list shows who did what; nothing that was typed in secret", async () => {
    const text = await keelson("audit", "list", "--action", "/users");
    expect(text).toMatch(/admin +127\.0\.0\.1 +DELETE \/users\/\{id\} +anna +done/);
    const all = await keelson("audit", "export");
    for (const secret of ["a password of", password]) expect(all).not.toContain(secret);
  });

  test("verify: whole, edited, an entry taken out, cut off at the end, written anew", async () => {
    await keelson("audit", "export", "--out", path("old.ndjson"));
    await keelson("audit", "heads", "--append", path("heads.ndjson"));
    await keelson("role", "add", "later");
    const whole = await keelson("audit", "verify", "--heads", path("heads.ndjson"));
    expect(whole).toMatch(/^\d+ entries, 1 to \d+: whole\.\n$/);
    expect(await keelson("audit", "verify")).toContain("No heads were given");
    await keelson("audit", "export", "--out", path("new.ndjson"));
    expect(statSync(path("new.ndjson")).mode & 0o777).toBe(0o600);
    const lines = readFileSync(path("new.ndjson"), "utf8").trimEnd().split("\n");
    const check = (changed: string[], ...more: string[]) => {
      writeFileSync(path("changed.ndjson"), `${changed.join("\n")}\n`);
      return run(["audit", "verify", "--file", path("changed.ndjson"), ...more]);
    };
    const heads = ["--heads", path("heads.ndjson")];
    expect((await check(lines, ...heads)).status).toBe(0);
    const edited = lines.with(2, lines[2].replace('"done"', '"failed"'));
    expect((await check(edited)).stderr).toMatch(/tampered with: line 3/);
    expect((await check(lines.toSpliced(4, 1))).stderr).toMatch(/entries are missing/);
    const cut = lines.slice(0, 5);
    expect((await check(cut)).status).toBe(0);
    expect((await check(cut, ...heads)).stderr).toMatch(/was cut off/);
    expect((await check(lines.slice(3))).stderr).toMatch(/entries before 4 are missing/);
    expect((await check(lines.slice(3), "--partial")).status).toBe(0);
    writeFileSync(path("bad-heads"), "nonsense\n");
    expect((await check(lines, "--heads", path("bad-heads"))).stderr).toMatch(/line 1, is no head/);
    expect((await run(["audit", "verify", "--file", "/nonexistent"])).status).toBe(1);
  });

  test("heads --watch prints each new one as it comes", async () => {
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, "main.ts"), "audit", "heads", "--watch", "--every", "1"],
      {
        env: {
          ...process.env,
          NODE_NO_WARNINGS: "1",
          KEELSON_SERVER: node.http,
          KEELSON_TOKEN: node.token,
        },
      },
    );
    try {
      let text = "";
      child.stdout.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      const lines = () => text.split("\n").filter((line) => line !== "");
      await expect.poll(() => lines().length).toBe(1);
      await node.call("POST", "/roles", { id: "watched", permissions: [] });
      await expect.poll(() => lines().length).toBe(2);
      const [first, second] = lines().map((line) => JSON.parse(line));
      expect(second.sequence).toBe(first.sequence + 1);
    } finally {
      child.kill("SIGTERM");
    }
  });
});
