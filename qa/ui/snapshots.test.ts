/** The page of snapshots against the real services: each of its buttons, and what it did there. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Export, Volume } from "#services/api/schema.ts";
import type { Snapshot, SnapshotSchedule } from "#services/api/snapshot-schema.ts";
import { launchBrowser, logIn, openWindow } from "./browser.ts";
import { type DevNode, startDevNode } from "./node.ts";

let node: DevNode;
let browser: Browser;
let page: Page;
const folder = mkdtempSync(join(tmpdir(), "keelson-snapshots-"));

beforeAll(async () => {
  node = await startDevNode();
  for (const name of ["db", "log"]) {
    await node.call("POST", "/volumes", { name, sizeBytes: 64 << 20 });
  }
  browser = await launchBrowser();
  page = await (await openWindow(browser)).newPage();
  await logIn(page, node.url, { user: "admin", password: node.password });
  await page.getByText("· live").waitFor({ state: "attached" });
});

afterAll(async () => {
  await browser?.close();
  await node?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const goTo = (path: string) =>
  page.evaluate((to) => {
    location.hash = to;
  }, path);
const row = (text: string) => page.getByRole("row").filter({ hasText: text });
const button = (name: string) => page.getByRole("button", { name, exact: true });
const dialog = () => page.getByRole("dialog");
const initiator = "iqn.2026-11.org.example:reader";
/** What QEMU's own initiator says of a command on a target's disk. */
const qemuIo = (target: string, command: string) => {
  const disk = {
    ...{ driver: "iscsi", transport: "tcp", portal: node.iscsiPortal, target, lun: 0 },
    "initiator-name": initiator,
  };
  const image = `json:${JSON.stringify({ driver: "raw", file: disk })}`;
  const { stdout, stderr } = spawnSync("qemu-io", ["-c", command, image], { encoding: "utf8" });
  return stdout + stderr;
};
const snapshots = () => node.call<Snapshot[]>("GET", "/snapshots");

test("an empty page says what belongs there; two volumes are taken at one instant", async () => {
  await goTo("/snapshots");
  await page.getByRole("heading", { name: "No snapshots yet" }).waitFor();
  await button("Take snapshots").first().click();
  await dialog().getByLabel("Name", { exact: true }).fill("monday");
  await dialog().getByLabel("db").check();
  await dialog().getByLabel("log").check();
  await dialog().getByRole("button", { name: "Take", exact: true }).click();
  await page.getByText("2 snapshots are taken.").waitFor();
  await expect.poll(() => row("monday").count()).toBe(2);
  const made = await snapshots();
  expect(new Set(made.map(({ groupId }) => groupId)).size).toBe(1);
});

test("one is held, and can't be deleted until it is released", async () => {
  const of = row("monday").filter({ hasText: "db" });
  await of.getByRole("button", { name: "Hold monday" }).click();
  await of.getByText("Held").waitFor();
  expect(await of.getByRole("button", { name: "Delete monday" }).isDisabled()).toBe(true);
  await of.getByRole("button", { name: "Release monday" }).click();
  await of.getByText("Ready").waitFor();
});

test("a clone of it is a volume of its own", async () => {
  const of = row("monday").filter({ hasText: "db" });
  await of.getByRole("button", { name: "Clone monday" }).click();
  await dialog().getByLabel("Name", { exact: true }).fill("db-copy");
  await dialog().getByRole("button", { name: "Clone", exact: true }).click();
  await page.getByText("Volume db-copy is created.").waitFor();
  await of.getByText("1 clone").waitFor();
  const volumes = await node.call<Volume[]>("GET", "/volumes");
  expect(volumes.map(({ name }) => name)).toContain("db-copy");
});

test("its disk is downloaded as a qcow2 that is sound", async () => {
  const of = row("monday").filter({ hasText: "log" });
  const coming = page.waitForEvent("download");
  await of.getByRole("button", { name: "Download monday" }).click();
  const download = await coming;
  expect(download.suggestedFilename()).toBe("log-monday.qcow2");
  const path = join(folder, "log.qcow2");
  await download.saveAs(path);
  expect(statSync(path).size).toBeGreaterThan(0);
  const { stdout } = spawnSync("qemu-img", ["check", path], { encoding: "utf8" });
  expect(stdout).toContain("No errors were found");
});

test("what has changed since is told in ranges, and that nothing has", async () => {
  await row("monday").filter({ hasText: "db" }).click();
  await dialog().getByText("by hand").waitFor();
  await dialog().getByRole("button", { name: "What has changed since" }).click();
  await dialog().getByText("Nothing has changed.").waitFor();
  await dialog().getByRole("button", { name: "Close" }).click();
  await dialog().waitFor({ state: "detached" });
  // Written by an initiator that nobody here wrote.
  const { targetIqn } = await node.call<Export>("POST", "/exports", {
    name: "to-write",
    volumeId: (await node.call<Volume[]>("GET", "/volumes")).find(({ name }) => name === "db")!.id,
    initiators: [initiator],
    chap: { kind: "none" },
  });
  await expect.poll(() => qemuIo(targetIqn, "write -P 7 1M 64k")).toContain("wrote 65536");
  await row("monday").filter({ hasText: "db" }).click();
  await dialog().getByRole("button", { name: "What has changed since" }).click();
  await dialog().getByText("64 KiB have changed.").waitFor();
  await dialog().getByRole("cell", { name: "1048576" }).waitFor();
  await dialog().getByRole("button", { name: "Close" }).click();
});

test("it is attached to a machine, which reads what was there then", async () => {
  await row("monday").filter({ hasText: "db" }).click();
  await dialog().getByRole("button", { name: "Attach to a machine" }).click();
  await dialog().getByLabel("iSCSI name").fill("no such name");
  await dialog().getByText("Give an iSCSI name like").waitFor();
  expect(await dialog().getByRole("button", { name: "Attach" }).isDisabled()).toBe(true);
  await dialog().getByLabel("iSCSI name").fill(initiator);
  await dialog().getByLabel("CHAP").selectOption("none");
  await dialog().getByRole("button", { name: "Attach" }).click();
  await dialog().getByText("is exported").waitFor();
  const target = (await dialog().locator("dd").nth(1).textContent())!;
  await expect.poll(() => qemuIo(target, "read -P 0 1M 64k")).toContain("read 65536");
  expect(await qemuIo(target, "read -P 7 1M 64k")).toContain("Pattern verification failed");
  await dialog().getByRole("button", { name: "Done" }).click();
});

test("the tree shows what came from what, and a snapshot of it opens", async () => {
  await page.getByText("Tree", { exact: true }).click();
  const names = await page.locator(".branch .name").allTextContents();
  const levels = names.map((text) => text.replace(/Level (\d+):\s*/, "$1 "));
  expect(levels.slice(0, 3)).toEqual(["1 db", "2 monday", "3 db-copy"]);
  await row("monday").first().focus();
  await page.keyboard.press("Enter");
  await dialog().getByText("db-copy").waitFor();
  await page.keyboard.press("Escape");
  await goTo("/snapshots");
});

test("a volume goes back to it, and what was there is kept as another snapshot", async () => {
  const of = row("monday").filter({ hasText: "log" });
  await of.getByRole("button", { name: "Go back to monday" }).click();
  await dialog().getByText("log goes back to monday?").waitFor();
  await dialog().getByRole("button", { name: "Go back", exact: true }).click();
  await page.getByText("log went back to monday.").waitFor();
  await expect.poll(async () => (await snapshots()).length).toBe(3);
});

test("one is deleted after its loss was named", async () => {
  const of = row("monday").filter({ hasText: "log" });
  await of.getByRole("button", { name: "Delete monday" }).click();
  await dialog()
    .getByText(/The state of log of/)
    .waitFor();
  await dialog().getByRole("button", { name: "Delete snapshot" }).click();
  await page.getByText("Snapshot monday is deleted.").waitFor();
  // The one that was kept of what was there is named after it.
  await expect.poll(() => button("Delete monday").count()).toBe(1);
});

test("only a volume's own are shown when it is chosen", async () => {
  await page.getByLabel("Of volume").selectOption({ label: "db" });
  await expect.poll(() => row("db").count()).toBe(1);
  await page.getByLabel("Of volume").selectOption({ label: "All volumes" });
  await expect.poll(() => row("log").count()).toBe(1);
});

test("a schedule is made, told what is wrong with it, turned off and deleted", async () => {
  await goTo("/snapshots?schedules");
  await page.getByRole("heading", { name: "No schedules yet" }).waitFor();
  await button("Create schedule").first().click();
  await dialog().getByLabel("Name", { exact: true }).fill("nightly");
  await dialog().getByLabel("db", { exact: true }).check();
  await dialog().getByLabel("Takes them").selectOption({ label: "Each day" });
  await dialog().getByLabel("At", { exact: true }).fill("25:00");
  await dialog().getByText("Write it like 02:30.").waitFor();
  await dialog().getByLabel("At", { exact: true }).fill("02:30");
  await dialog().getByRole("button", { name: "Save", exact: true }).click();
  await row("nightly").getByText("Daily at 02:30").waitFor();
  await row("nightly").getByRole("button", { name: "Turn nightly off" }).click();
  await row("nightly").getByText("Off").waitFor();
  const [schedule] = await node.call<SnapshotSchedule[]>("GET", "/snapshot-schedules");
  expect(schedule).toMatchObject({ name: "nightly", enabled: false });
  await row("nightly").getByRole("button", { name: "Delete nightly" }).click();
  await dialog()
    .getByRole("button", { name: /Delete/ })
    .click();
  await page.getByRole("heading", { name: "No schedules yet" }).waitFor();
});
