/** `keelson identity-provider`, `console-address` and what users have by it, with a certified provider. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FixtureBrowser } from "#services/api/browser.fixture.ts";
import {
  type CertifiedProvider,
  logInThere,
  startCertifiedProvider,
} from "#services/api/oidc-provider.fixture.ts";
import { TestNode } from "#services/api/platform.fixture.ts";
import { keelsonOf, runKeelson } from "./run.fixture.ts";

const node = new TestNode();
let provider: CertifiedProvider;
let console: string;
let ca: string;

beforeAll(async () => {
  await node.start();
  console = `https://localhost:${new URL(node.https).port}`;
  provider = await startCertifiedProvider(`${console}/api/v1/login/oidc/callback`);
  ca = join(node.state, "provider-ca.pem");
  writeFileSync(ca, provider.caCertificate);
});
afterAll(async () => {
  await provider?.close();
  await node.remove();
});

const run = (args: readonly string[], input = "") => runKeelson(node, args, input);
const keelson = (...args: string[]) => keelsonOf(node, ...args);

describe("settings", () => {
  test("none: show and remove say so, and what to do", async () => {
    for (const verb of ["show", "remove", "test"]) {
      const { status, stderr } = await run(["identity-provider", verb]);
      expect([verb, status]).toEqual([verb, 1]);
      expect(stderr).toContain("keelson identity-provider set");
    }
  });

  test("the console's address is shown, set, and told about security keys", async () => {
    expect(await keelson("console-address")).toContain("(of the node's name)");
    const set = await keelson("console-address", "set", console);
    expect(set).toMatch(/^Security keys +bound to localhost$/m);
    const wrong = await run(["console-address", "set", "ftp://x"]);
    expect([wrong.status, wrong.stderr]).toEqual([2, expect.stringContaining("not an https URL")]);
  });

  const set = [
    ...["identity-provider", "set", "--name", "Office", "--client-id", "keelson"],
    ...["--group-role", "it=admin", "--group-role", "cn=desk,dc=x=read-only"],
  ];

  test("without a terminal the secret comes by standard input, and is not shown", async () => {
    const without = await run([...set, "--issuer", provider.origin]);
    expect(without.status).toBe(2);
    expect(without.stderr).toContain("Give the client's secret");
    const given = [...set, "--issuer", provider.origin, "--client-secret-stdin", "--ca", ca];
    const done = await run(given, `${provider.clientSecret}\n`);
    expect(done.stderr).toBe("");
    expect(done.stdout).toMatch(/^Client secret +set$/m);
    expect(done.stdout).toMatch(/^Groups and roles +it = admin, cn=desk,dc=x = read-only$/m);
    expect(done.stdout).toMatch(/^Redirect URI +https:\/\/localhost:\d+\/api\/v1\/login/m);
    expect(done.stdout).not.toContain(provider.clientSecret);
    expect(await keelson("identity-provider", "--json")).not.toContain(provider.clientSecret);
  });

  test("test names each step, and the first that is wrong", async () => {
    const good = await keelson("identity-provider", "test");
    expect(good).toMatch(
      /^good {3}Metadata: .*\ngood {3}Keys: .*\ngood {3}Client: .*\ngood {3}Log-out: /,
    );
    await run(["identity-provider", "set", "--client-secret-stdin"], "wrong\n");
    const bad = await run(["identity-provider", "test"]);
    expect(bad.status).toBe(1);
    expect(bad.stdout).toMatch(/^WRONG {2}Client: /m);
    expect(bad.stderr).toContain("Local users can log in meanwhile");
    await run(["identity-provider", "set", "--client-secret-stdin"], `${provider.clientSecret}\n`);
    expect((await run(["identity-provider", "test"])).status).toBe(0);
  });

  test("what isn't given stays; what is wrong changes nothing", async () => {
    await keelson("identity-provider", "set", "--groups-claim", "groups", "--no-create-users");
    const shown = await keelson("identity-provider");
    expect(shown).toMatch(/^Makes users +no$/m);
    expect(shown).toMatch(/^CA certificate +given$/m);
    for (const [args, why] of [
      [["--group-role", "nonsense"], "is not GROUP=ROLE"],
      [["--group-role", "it=no-such-role"], "There is no role no-such-role"],
      [["--ca", "/nonexistent"], "/nonexistent is not there"],
      [["--issuer", "https://elsewhere.invalid"], "Another issuer has another secret"],
      [["--scopes", "profile"], "must include openid"],
    ] as const) {
      const { status, stderr } = await run(["identity-provider", "set", ...args]);
      expect(status, stderr).not.toBe(0);
      expect(stderr).toContain(why);
    }
    expect(await keelson("identity-provider")).toBe(shown);
    await keelson("identity-provider", "set", "--create-users", "--no-log-out-there");
    expect(await keelson("identity-provider")).toMatch(/^Logs out there +no$/m);
    await keelson("identity-provider", "set", "--log-out-there");
  });
});

describe("users that have come by it", () => {
  const logIn = async (subject: string) => {
    const browser = new FixtureBrowser();
    const page = await logInThere(browser, `${console}/api/v1/login/oidc/start`, subject);
    await browser.close();
    return page.url.hash;
  };

  test("are listed with who they are there, and unlinked, which ends what was opened", async () => {
    provider.accounts.set("subject-1", { preferred_username: "vera", groups: ["it"] });
    expect(await logIn("subject-1")).toBe("#/");
    const listed = await keelson("user", "identities", "vera");
    expect(listed).toContain(provider.origin);
    expect(listed).toMatch(/ subject-1 +its first log-in/);
    expect(await keelson("session", "--user", "vera")).toMatch(/ oidc /);
    const locked = await run(["user", "unlink", "vera", "subject-1"]);
    expect(locked.stderr).toContain("vera has no password: nothing else would be left");
    await run(["user", "password", "vera", "--password-stdin"], "a password of vera\n");
    expect(await logIn("subject-1")).toBe("#/");
    expect((await run(["user", "unlink", "vera", "subject-2"])).stderr).toContain("no identity");
    await keelson("user", "unlink", "vera", "subject-1");
    expect(await keelson("session", "--user", "vera")).toBe("No sessions.\n");
    expect(await keelson("user", "identities", "vera")).toBe("No identities.\n");
    expect(await logIn("subject-1")).toMatch(/login=name-taken/);
    expect(await keelson("audit", "--action", "/identities")).toMatch(/DELETE .* done/);
  });

  test("security keys: none; one or all must be named", async () => {
    expect(await keelson("user", "keys", "vera")).toBe("No security keys.\n");
    expect((await run(["user", "remove-key", "vera"])).status).toBe(2);
    expect((await run(["user", "remove-key", "vera", "x", "--all"])).status).toBe(2);
    expect((await run(["user", "remove-key", "vera", "blue"])).stderr).toContain(
      "There is no security key blue",
    );
    await keelson("user", "remove-key", "vera", "--all");
    expect((await run(["user", "keys", "nobody"])).stderr).toContain("There is no user nobody");
  });
});

test("removed, nobody comes in by it, and users and links stay", async () => {
  expect(await keelson("identity-provider", "remove")).toBe("The identity provider is removed.\n");
  expect(await keelson("user")).toMatch(/^vera /m);
  expect((await run(["identity-provider"])).status).toBe(1);
});
