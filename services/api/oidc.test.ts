import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FixtureBrowser } from "./browser.fixture.ts";
import { type FixtureNode, startFixtureNode } from "./identity-node.fixture.ts";
import {
  type CertifiedProvider,
  logInThere,
  startCertifiedProvider,
} from "./oidc-provider.fixture.ts";

/** The service over TLS, against a certified provider over TLS, by real redirects. */
const directory = mkdtempSync(join(tmpdir(), "keelson-oidc-"));
let node: FixtureNode;
let provider: CertifiedProvider;

const settings = () => ({
  name: "Office",
  issuer: provider.origin,
  clientId: provider.clientId,
  clientSecret: provider.clientSecret,
  groupRoles: [
    { group: "it", role: "admin" },
    { group: "desk", role: "read-only" },
  ],
  caCertificate: provider.caCertificate,
});

beforeAll(async () => {
  node = await startFixtureNode(join(directory, "node"));
  provider = await startCertifiedProvider(`${node.url}/api/v1/login/oidc/callback`);
  await node.call("PUT", "/identity-provider", settings());
}, 60_000);
afterAll(async () => {
  await node?.stop();
  await provider?.close();
  rmSync(directory, { recursive: true, force: true });
});

const start = () => `${node.url}/api/v1/login/oidc/start?returnTo=/volumes`;

async function logIn(subject: string, browser = new FixtureBrowser()) {
  const page = await logInThere(browser, start(), subject);
  return { page, browser, session: browser.cookie(node.url, "__Host-keelson") };
}

describe("by a certified provider", () => {
  test("a first log-in makes the user with the roles of its groups", async () => {
    provider.accounts.set("s-1", {
      preferred_username: "Vera",
      name: "Vera Voss",
      groups: ["it", "x"],
    });
    const { page, session } = await logIn("s-1");
    expect(page.url.href).toBe(`${node.url}/#/volumes`);
    expect(await node.whoIs(session)).toMatchObject({
      user: "vera",
      displayName: "Vera Voss",
      roles: ["admin"],
    });
  });
});
