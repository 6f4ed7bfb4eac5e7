import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { verifyPassword } from "#lib/password/password.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-answers-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function keelson(args: readonly string[], input = "") {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["cli/main.ts", ...args], {
    input,
    encoding: "utf8",
  });
  return { status, stdout: stdout.trim(), stderr: stderr.trim() };
}

test("a hash made here goes into an answer file that passes the check", async () => {
  const { status, stdout } = keelson(["answer-file", "hash", "--password-stdin"], "long enough\n");
  expect(status).toBe(0);
  expect(await verifyPassword("long enough", stdout)).toBe(true);

  const file = join(folder, "keelson-answers.json");
  const answers = {
    version: 1,
    node: { name: "node-1" },
    disk: "only",
    admin: { passwordHash: stdout },
  };
  writeFileSync(file, JSON.stringify(answers));
  expect(keelson(["answer-file", "check", file])).toMatchObject({
    status: 0,
    stdout: `${file} is good: node node-1.`,
  });

  writeFileSync(file, JSON.stringify({ ...answers, admin: { passwordHash: "long enough" } }));
  const refused = keelson(["answer-file", "check", file]);
  expect(refused.status).toBe(2);
  expect(refused.stderr).toContain("admin.passwordHash: is not a password hash");
});

test.each([
  [["answer-file", "check", "/nowhere.json"], 1, "/nowhere.json can't be read"],
  [["answer-file", "hash", "--password-stdin"], 2, "at least 8 characters"],
])("%j: exit %i, and says why", (args, status, message) => {
  const result = keelson(args, "short\n");
  expect(result.status).toBe(status);
  expect(result.stderr).toContain(message);
  expect(result.stderr).not.toMatch(/\n\s+at /);
});
