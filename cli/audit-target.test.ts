/** `keelson audit target`, and `audit verify` with what real receivers got. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { receiveSyslog } from "#services/api/head-receiver.fixture.ts";
import { serveTls } from "#services/api/oidc-provider.fixture.ts";
import { TestNode } from "#services/api/platform.fixture.ts";
import { keelsonOf, runKeelson } from "./run.fixture.ts";

const node = new TestNode();
beforeAll(() => node.start());
afterAll(() => node.remove());

const path = (name: string) => join(node.state, name);
const keelson = (...args: string[]) => keelsonOf(node, ...args);

/** Whole, then edited, then cut off: all against these heads. */
async function verifyAll(heads: string): Promise<void> {
  const whole = await keelson("audit", "verify", "--heads", heads);
  expect(whole).toMatch(/^\d+ entries, 1 to \d+: whole\.\n$/);
  const lines = (await keelson("audit", "export")).trimEnd().split("\n");
  const check = (changed: string[]) => {
    writeFileSync(path("changed.ndjson"), `${changed.join("\n")}\n`);
    return runKeelson(node, [
      "audit",
      "verify",
      "--file",
      path("changed.ndjson"),
      "--heads",
      heads,
    ]);
  };
  const edited = await check(lines.with(0, lines[0].replace('"done"', '"failed"')));
  expect(edited).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/tampered with: line 1/),
  });
  const cut = await check(lines.slice(0, 2));
  expect(cut).toMatchObject({ status: 1, stderr: expect.stringMatching(/was cut off/) });
}

test("syslog over TLS: set, tried, and what it received finds an edit and a cut-off end", async () => {
  expect(await keelson("audit", "target")).toBe("Heads stay on the node: no target is set.\n");
  const server = await receiveSyslog({ tls: true });
  try {
    writeFileSync(path("ca.pem"), server.caCertificate);
    const url = `syslog+tls://localhost:${server.port}`;
    const set = await keelson(
      "audit",
      "target",
      "set",
      url,
      "--ca",
      path("ca.pem"),
      "--entries",
      "1",
    );
    expect(set.split("\n")[0]).toBe(`Target          ${url}`);
    await keelson("role", "add", "seen-elsewhere");
    expect(await keelson("audit", "target", "test")).toMatch(/took the head of entry \d+/);
    // As a collector writes it: its own time and words before the message.
    const file = server.messages.map((each) => `2026-11-21T08:00:00+00:00 host ${each}\n`).join("");
    writeFileSync(path("heads.log"), file);
    await verifyAll(path("heads.log"));
    expect(await keelson("audit", "target")).toMatch(/^CA certificate +given$/m);
    // What isn't given stays.
    expect(await keelson("audit", "target", "set", url, "--every", "60")).toMatch(
      /^Sends +after 1 entries, or 60 s$/m,
    );
  } finally {
    await server.close();
  }
  const failed = await runKeelson(node, ["audit", "target", "test"]);
  expect(failed).toMatchObject({ status: 1, stdout: "" });
  expect(failed.stderr).toMatch(/refuses connections\. Check the address/);
});

test("https with a token from standard input: what was posted is a file of heads", async () => {
  let posted = "";
  const tokens = new Set<string | undefined>();
  const server = await serveTls(() => (request, response) => {
    tokens.add(request.headers.authorization);
    request.on("data", (part) => {
      posted += part;
    });
    request.on("end", () => response.writeHead(204).end());
  });
  try {
    writeFileSync(path("ca.pem"), server.caCertificate);
    const args = ["audit", "target", "set", `${server.origin}/heads`, "--ca", path("ca.pem")];
    const set = await runKeelson(node, [...args, "--token-stdin"], "t0ken-of-mine\n");
    expect(set.stderr).toBe("");
    expect(set.stdout).toMatch(/^Token +set$/m);
    expect(set.stdout).not.toContain("t0ken-of-mine");
    await keelson("audit", "target", "test");
    expect([...tokens]).toEqual(["Bearer t0ken-of-mine"]);
    writeFileSync(path("heads.ndjson"), posted);
    await verifyAll(path("heads.ndjson"));
    expect(await keelson("audit", "target", "set", `${server.origin}/heads`, "--no-token")).toMatch(
      /^Token +none$/m,
    );
  } finally {
    await server.close();
  }
  expect(await keelson("audit", "target", "remove")).toBe("Heads stay on the node.\n");
  expect((await runKeelson(node, ["audit", "target", "remove"])).status).toBe(1);
});

test("heads of several nodes in one file: whose they are must be said", async () => {
  const [mine] = (await keelson("audit", "heads")).trim().split("\n");
  const named = (name: string, change = {}) =>
    JSON.stringify({ ...JSON.parse(mine), node: name, ...change });
  const other = named("node-2", { hash: "f".repeat(64) });
  writeFileSync(path("both.ndjson"), `${named("node-1")}\n${other}\n`);
  const verify = (...more: string[]) =>
    runKeelson(node, ["audit", "verify", "--heads", path("both.ndjson"), ...more]);
  expect(await verify()).toMatchObject({
    status: 2,
    stderr: expect.stringContaining("has heads of node-1, node-2. Say with --node"),
  });
  expect((await verify("--node", "node-1")).status).toBe(0);
  expect((await verify("--node", "node-2")).stderr).toMatch(/the log was rewritten/);
  expect((await verify("--node", "node-3")).stderr).toMatch(/has no head of node-3/);
});
