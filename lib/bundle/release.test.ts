import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { fixtureManifest, fixtureParts } from "./bundle.fixture.ts";
import { readRelease, targetOf } from "./release.ts";
import { judgeTarget } from "./target.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-release-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, "release.json");

const release = {
  version: "2026.11.0",
  development: false,
  architecture: "amd64",
  hardware: "pc",
  dataFormats: { "chunk-store": { oldest: 0, newest: 1 }, node: { oldest: 1, newest: 1 } },
};

test("what the node holds is what a bundle must read", () => {
  writeFileSync(path, JSON.stringify(release));
  const target = targetOf(readRelease(path), { "chunk-store": 1, node: 1 }, "2026.9.0");
  expect(target).toEqual({
    developmentNode: false,
    architecture: "amd64",
    hardware: "pc",
    runningVersion: "2026.11.0",
    lastWorkedVersion: "2026.9.0",
    dataFormats: { "chunk-store": 1, node: 1 },
  });
  const bundle = (newest: number) =>
    fixtureManifest(fixtureParts(), {
      dataFormats: { "chunk-store": { oldest: 0, newest }, node: { oldest: 1, newest: 1 } },
    });
  judgeTarget(bundle(1), target);
  expect(() => judgeTarget(bundle(0), target)).toThrow(
    "2026.12.0 can't read this node's chunk-store: format 1; it reads 0.",
  );
});

test("a release file that is missing or of another form is said by name", () => {
  expect(() => readRelease(join(folder, "none.json"))).toThrow(/none\.json can't be read/);
  writeFileSync(path, JSON.stringify({ ...release, version: "dev" }));
  expect(() => readRelease(path)).toThrow(/release\.json is not as expected/);
});
