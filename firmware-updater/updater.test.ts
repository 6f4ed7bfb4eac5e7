/** The updater as the API sees it, over its socket, with real state, spool and slots in files. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { fixtureBundle, fixtureManifest, fixtureParts } from "#lib/bundle/bundle.fixture.ts";
import { dataFormats, firstFormats, raised } from "#lib/data-format/formats.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import { type FixtureUpdater, startUpdater } from "./node.fixture.ts";
import type { OfferedBundle, UpgradeState } from "./schema.ts";

let folder: string;
let run: string;
let node: FixtureUpdater;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "keelson-updater-"));
  run = join(folder, "run");
  node = await startUpdater(folder, run);
});
afterEach(async () => {
  await node.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function call(method: string, path: string, body?: Buffer | object) {
  const bytes = body instanceof Buffer;
  const answer = await unixFetch(join(run, "api.sock"), 20_000)(`http://unix/v1/${path}`, {
    method,
    ...(body === undefined ? {} : { body: bytes ? new Uint8Array(body) : JSON.stringify(body) }),
    headers: { "content-type": bytes ? "application/octet-stream" : "application/json" },
  });
  const text = await answer.text();
  return { status: answer.status, body: text === "" ? null : JSON.parse(text) };
}
const state = async () => (await call("GET", "state")).body as UpgradeState;
const formatsPath = () => join(folder, "state/formats.json");
const reading = (oldest: number, newest: number) => {
  const parts = fixtureParts();
  const formats = { ...dataFormats, network: { oldest, newest } };
  return fixtureBundle({ parts, manifest: fixtureManifest(parts, { dataFormats: formats }) });
};

test("a version that is kept says what its node holds, for every service to read", async () => {
  await vi.waitFor(() => expect(existsSync(formatsPath())).toBe(true));
  expect(JSON.parse(readFileSync(formatsPath(), "utf8"))).toEqual({
    ...{ format: 1, formats: raised(firstFormats, dataFormats) },
  });
  const { slots } = JSON.parse(readFileSync(join(folder, "state/state.json"), "utf8"));
  expect(slots.a.dataFormats, "for whoever runs when this is the other slot").toEqual(dataFormats);
});

test("a bundle whose version can't read what is here is refused, and nothing is kept of it", async () => {
  const { status, body } = await call("POST", "bundles", reading(2, 3));
  expect(status).toBeGreaterThanOrEqual(400);
  expect(body.title).toBe("2026.12.0 can't read this node's network: format 1; it reads 2 to 3.");
  expect(readdirSync(join(folder, "state/spool"))).toEqual([]);
});

test("one that was taken can't start any more once the node holds something newer", async () => {
  const { status, body } = await call("POST", "bundles", reading(1, 1));
  expect(status).toBe(201);
  const bundle = body as OfferedBundle;
  expect(bundle.startable).toEqual({ ok: true });
  const newer = { format: 1, formats: { ...firstFormats, network: 2 } };
  writeFileSync(formatsPath(), JSON.stringify(newer));
  const why = "2026.12.0 can't read this node's network: format 2; it reads 1.";
  expect((await state()).bundles[0].startable).toEqual({ ok: false, why });
  const started = await call("POST", "plan/start", { bundleId: bundle.id });
  expect(started).toMatchObject({ status: 409, body: { title: why } });
  expect((await state()).plan).toBeNull();
});

test("an empty slot is no way back, and that is said before anybody tries", async () => {
  const why = "The other slot holds no version that has worked here.";
  expect((await state()).nodes[0].wayBack).toEqual({ ok: false, why });
  expect(await call("POST", "rollback")).toMatchObject({ status: 409, body: { title: why } });
});

test.each([
  [{ channel: "http://example.org/", neighbour: null }, /https/],
  [{ channel: null, neighbour: "10.77.0.2" }, /https/],
  [{ channel: null, neighbour: "https://10.77.0.2", neighbourFingerprint: "AB:CD" }, /SHA-256/],
])("sources that are none are refused: %j", async (body, message) => {
  const answer = await call("PUT", "sources", body);
  expect(answer.status).toBe(400);
  expect(answer.body.title).toMatch(message);
  expect((await state()).sources.channel).toBeNull();
});
