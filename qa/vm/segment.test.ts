import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { createSegment } from "./segment.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-segment-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a hub's socket left by a killed run is replaced, a living one is refused", async () => {
  const path = join(folder, "hub");
  const dying = `require("net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
  expect(spawnSync(process.execPath, ["-e", dying]).signal).toBe("SIGKILL");
  expect(existsSync(path)).toBe(true);

  const segment = await createSegment(path);
  await expect(createSegment(path)).rejects.toMatchObject({ code: "PORT_IN_USE" });
  await segment.close();
});
