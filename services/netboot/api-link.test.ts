import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { closeServer } from "#lib/rpc/serve.ts";
import type { StageReport } from "#services/api/boot-schema.ts";
import { ApiLink } from "./api-link.ts";
import { Counters } from "./counters.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-api-link-"));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("reports wait, in their order, for an api that starts again", async () => {
  const socket = join(folder, "internal.sock");
  const counters = new Counters();
  const link = new ApiLink(socket, counters);
  const mac = "52:54:00:00:00:01" as StageReport["mac"];
  link.report({ mac, stage: "dhcp" });
  link.report({ mac, stage: "loader" });
  link.report({ mac, stage: "script" });
  const told: string[] = [];
  const server = createServer((request, response) => {
    request.setEncoding("utf8").once("data", (body) => told.push(JSON.parse(body).stage));
    request.on("end", () => response.writeHead(204).end());
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  try {
    await vi.waitUntil(() => told.length === 3, { timeout: 60_000 });
    expect(told).toEqual(["dhcp", "loader", "script"]);
    await expect.poll(() => counters.get("report.sent")).toBe(3);
    expect(counters.get("report.again")).toBeGreaterThan(0);
  } finally {
    await closeServer(server);
  }
});
