import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { fixtureBundle, productionTrust } from "#lib/bundle/bundle.fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-cli-bundle-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const file = join(folder, "keelson-2026.12.0.kbundle");
const trust = join(folder, "trust.json");
writeFileSync(file, fixtureBundle());
writeFileSync(trust, JSON.stringify(productionTrust));

function keelson(args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["cli/main.ts", ...args], {
    encoding: "utf8",
  });
  return { status, stdout: stdout.trim(), stderr: stderr.trim() };
}

test("a good bundle is shown with signer, parts and notes, and verified", () => {
  const shown = keelson(["bundle", "show", file, "--trust", trust]);
  expect(shown.status).toBe(0);
  expect(shown.stdout).toMatch(/^version\s+2026\.12\.0$/m);
  expect(shown.stdout).toMatch(/^signed by\s+release 11 \([0-9a-f]{32}\), epoch 1$/m);
  expect(shown.stdout).toMatch(/^ {2}root\s+40 B$/m);
  expect(shown.stdout).toMatch(/^What is new: nothing\.$/m);
  const verified = keelson(["--json", "bundle", "verify", file, "--trust", trust]);
  expect(JSON.parse(verified.stdout)).toMatchObject({
    valid: true,
    signer: { epoch: 1 },
    manifest: { version: "2026.12.0", development: false },
  });
});

test("a damaged one is refused in one line, with exit code 1 and nothing on stdout", () => {
  const bytes = fixtureBundle();
  bytes[bytes.length - 1] ^= 1;
  const bad = join(folder, "bad.kbundle");
  writeFileSync(bad, bytes);
  for (const command of ["show", "verify"]) {
    const { status, stdout, stderr } = keelson(["bundle", command, bad, "--trust", trust]);
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    expect(stderr).toBe(
      "keelson: The bundle's part sbom is not what its manifest says. The file is damaged: get it again.",
    );
  }
});

test("without a trust file, it says which one is missing and what to do", () => {
  const { status, stderr } = keelson(["bundle", "verify", file, "--trust", `${folder}/none.json`]);
  expect(status).toBe(1);
  expect(stderr).toMatch(/none\.json can't be read: .*name another file/);
  writeFileSync(join(folder, "empty.json"), '{"roots":[],"revokedKeyIds":[]}');
  const empty = keelson(["bundle", "verify", file, "--trust", join(folder, "empty.json")]);
  expect(empty.stderr).toContain("is no trust file: roots");
});
