import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Release } from "#lib/bundle/release.ts";
import { firstFormats } from "#lib/data-format/formats.ts";
import { NodeFormats, wayBack } from "./node-formats.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-node-formats-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const release = (version: string, ranges: Release["dataFormats"]): Release => ({
  ...{ version, development: false, architecture: "amd64", hardware: "pc", dataFormats: ranges },
});
/** What 2026.11.0 read. */
const ranges: Release["dataFormats"] = Object.fromEntries(
  Object.entries(firstFormats).map(([name, format]) => [name, { oldest: format, newest: format }]),
);
const v1 = release("2026.11.0", ranges);
const v2 = release("2026.12.0", { ...ranges, network: { oldest: 1, newest: 2 } });
const v3 = release("2027.1.0", { ...ranges, network: { oldest: 2, newest: 3 } });
const running = (of: Release) => new NodeFormats(folder, () => of);

test("a new node holds the first formats, and its first version makes that known", () => {
  expect(running(v1).held()).toEqual(firstFormats);
  expect(running(v1).file.isWritten).toBe(false);
  running(v1).raise();
  expect(running(v1).file.isWritten).toBe(true);
  expect(running(v1).held()).toEqual(firstFormats);
});

test("old to new and back: only as long as nothing was brought forward", () => {
  running(v1).raise();
  expect(running(v1).against(v2.version, v2.dataFormats)).toBeUndefined();
  expect(running(v1).wayBackEnds(v2)).toBe(
    "Once 2026.12.0 is kept there is no way back: 2026.11.0 can't read its network: format 2; it reads 1.",
  );
  // On trial: the old slot can still come back.
  expect(running(v2).against(v1.version, v1.dataFormats)).toBeUndefined();
  running(v2).raise();
  expect(running(v2).against(v1.version, v1.dataFormats)).toBe(
    "2026.11.0 can't read this node's network: format 2; it reads 1.",
  );
});

test("a version that skips what this node holds is refused until the one between was kept", () => {
  running(v1).raise();
  expect(running(v1).against(v3.version, v3.dataFormats)).toBe(
    "2027.1.0 can't read this node's network: format 1; it reads 2 to 3.",
  );
  running(v2).raise();
  expect(running(v2).against(v3.version, v3.dataFormats)).toBeUndefined();
  expect(running(v2).wayBackEnds(v3)).toMatch(/^Once 2027.1.0 is kept there is no way back/);
});

test("going back to a version that reads everything lowers nothing", () => {
  running(v2).raise();
  const older = release("2026.11.1", { ...ranges, network: { oldest: 1, newest: 2 } });
  running(older).raise();
  expect(running(older).held().network).toBe(2);
});

test("the other slot is a way back if it has worked, is whole, and reads what is here", () => {
  running(v1).raise();
  const record = { version: v1.version, rootHash: "", worked: true, failed: false };
  const known = { ...record, dataFormats: v1.dataFormats };
  const view = { slot: "b", version: v1.version, state: "good", triesLeft: null } as const;
  expect(wayBack(view, known, running(v2))).toEqual({ ok: true });
  expect(wayBack(view, record, running(v2)), "a version that doesn't say").toEqual({ ok: true });
  const never = { ok: false, why: "The other slot holds no version that has worked here." };
  expect(wayBack(view, undefined, running(v2))).toEqual(never);
  expect(wayBack(view, { ...known, worked: false }, running(v2))).toEqual(never);
  expect(wayBack({ ...view, state: "unfinished" }, known, running(v2))).toEqual(never);
  running(v2).raise();
  expect(wayBack(view, known, running(v2))).toEqual({
    ...{ ok: false, why: "2026.11.0 can't read this node's network: format 2; it reads 1." },
  });
});
