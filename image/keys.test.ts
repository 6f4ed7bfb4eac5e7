import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { fixtureBundle } from "#lib/bundle/bundle.fixture.ts";
import { verifyBundle } from "#lib/bundle/file.ts";
import { emptyTrustState, parseTrust, trustOf } from "#lib/bundle/trust.ts";
import {
  makeReleaseKey,
  makeRoot,
  readRootFolder,
  readSigning,
  readSigningKey,
  revokeKeys,
} from "./key-folder.ts";
import { newKey, readPrivateKey, writePrivateKey } from "./private-key.ts";
import { developmentKeys, signingOf } from "./signing.ts";

const project = resolve(import.meta.dirname, "..");
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-keys-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const at = (...names: string[]) => join(folder, ...names);
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8);

describe("a private key in a file", () => {
  test("is its owner's alone, and never replaced", () => {
    writePrivateKey(at("a.key"), newKey());
    expect(modeOf(at("a.key"))).toBe("600");
    expect(() => writePrivateKey(at("a.key"), newKey())).toThrow("holds a key already");
    chmodSync(at("a.key"), 0o640);
    expect(() => readPrivateKey(at("a.key"))).toThrow("can be read by others");
  });

  test("with a passphrase is a PKCS#8 file by scrypt, which OpenSSL reads", {
    timeout: 60_000,
  }, () => {
    const key = newKey();
    writePrivateKey(at("a.key"), key, "correct horse");
    const text = readFileSync(at("a.key"), "utf8");
    expect(text).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
    expect(text).not.toContain(
      key.export({ format: "pem", type: "pkcs8" }).toString().slice(40, 80),
    );
    expect(readPrivateKey(at("a.key"), "correct horse").equals(key)).toBe(true);
    expect(() => readPrivateKey(at("a.key"))).toThrow("needs its passphrase");
    expect(() => readPrivateKey(at("a.key"), "wrong horse")).toThrow("passphrase is wrong");
    const openssl = spawnSync(
      "openssl",
      ["pkey", "-in", at("a.key"), "-passin", "pass:correct horse", "-noout", "-text"],
      { encoding: "utf8" },
    );
    expect(openssl.stdout).toContain("ED25519 Private-Key");
  });

  test("of another kind, or none, is refused", () => {
    writeFileSync(at("x.key"), "no key", { mode: 0o600 });
    expect(() => readPrivateKey(at("x.key"))).toThrow("can't be used");
    expect(() => readPrivateKey(at("none.key"))).toThrow("can't be read");
  });
});

describe("root and release keys", () => {
  const bundleBy = (release: string) => {
    const { certificate, privateKey, revocations } = readSigningKey(at(release));
    const path = at(`${release}.kbundle`);
    const signer = { certificate, key: privateKey };
    writeFileSync(path, fixtureBundle({ signer, revocations }));
    return path;
  };
  const trust = () => ({ roots: [readRootFolder(at("root")).root], revokedKeyIds: [] });

  test("rotation: nodes that saw the new key refuse the old one", async () => {
    makeRoot(at("root"), { name: "root" });
    makeReleaseKey(at("root"), at("one"), { name: "one" });
    makeReleaseKey(at("root"), at("colleague"), { name: "colleague" });
    makeReleaseKey(at("root"), at("two"), { name: "two", rotate: true });
    expect(readRootFolder(at("root")).certificates.map(({ body }) => body)).toMatchObject([
      { name: "one", epoch: 1, serial: 1 },
      { name: "colleague", epoch: 1, serial: 2 },
      { name: "two", epoch: 2, serial: 3 },
    ]);
    await verifyBundle(bundleBy("one"), trust());
    const { signer } = await verifyBundle(bundleBy("two"), trust());
    const since = trustOf(trust(), signer.trustState);
    for (const old of ["one", "colleague"]) {
      await expect(verifyBundle(bundleBy(old), since)).rejects.toMatchObject({
        problem: "key-replaced",
      });
    }
    // The next key of a rotated root is of the present epoch, not of the first.
    makeReleaseKey(at("root"), at("three"), { name: "three" });
    await verifyBundle(bundleBy("three"), since);
  });

  test("revocation: the next bundle of the other key brings it", async () => {
    makeRoot(at("root"), { name: "root" });
    const { body } = makeReleaseKey(at("root"), at("one"), { name: "one" });
    makeReleaseKey(at("root"), at("two"), { name: "two" });
    revokeKeys(at("root"), [body.keyId], { refresh: [at("two")] });
    expect(readSigning(at("two")).revocations).toHaveLength(1);
    const { signer } = await verifyBundle(bundleBy("two"), trustOf(trust(), emptyTrustState));
    await expect(
      verifyBundle(bundleBy("one"), trustOf(trust(), signer.trustState)),
    ).rejects.toMatchObject({ problem: "key-revoked" });
    expect(() => revokeKeys(at("root"), ["0".repeat(32)])).toThrow("has certified no key");
  });

  test("a certificate beside another key is refused", () => {
    makeRoot(at("root"), { name: "root" });
    makeReleaseKey(at("root"), at("one"), { name: "one" });
    makeReleaseKey(at("root"), at("two"), { name: "two" });
    cpSync(at("one", "signing.json"), at("two", "signing.json"));
    expect(() => readSigningKey(at("two"))).toThrow("certificate is not of release.key");
  });
});

describe("what a build signs with", () => {
  test("without a key: a throw-away one, made once, that says so", () => {
    const first = signingOf(project, at("cache"));
    const again = signingOf(project, at("cache"));
    expect(first.development).toBe(true);
    expect(again.key.certificate).toEqual(first.key.certificate);
    expect(first.trust.roots.at(-1)).toMatchObject({ development: true });
    expect(modeOf(join(developmentKeys(at("cache")), "root/root.key"))).toBe("600");
    expect(parseTrust(JSON.stringify(first.trust), "trust.json")).toEqual(first.trust);
  });

  test("with a release key: only one whose root the sources name; no development root", () => {
    const root = makeRoot(at("root"), { name: "root" });
    makeReleaseKey(at("root"), at("one"), { name: "one", rotate: true, passphrase: "long enough" });
    mkdirSync(at("project/image/trust"), { recursive: true });
    const name = (roots: unknown[]) =>
      writeFileSync(
        at("project/image/trust/roots.json"),
        JSON.stringify({ roots, revokedKeyIds: [] }),
      );
    name([]);
    const sign = () => signingOf(at("project"), at("cache"), at("one"), "long enough");
    expect(sign).toThrow("doesn't name");
    name([{ ...root, development: true }]);
    expect(sign).toThrow("doesn't name");
    name([root]);
    const { development, trust } = sign();
    expect(development).toBe(false);
    expect(trust.roots).toEqual([{ ...root, minimumEpoch: 2 }]);
    expect(existsSync(at("cache"))).toBe(false);
  });

  test("no private key is in the sources", () => {
    const { stdout } = spawnSync("git", ["ls-files"], { cwd: project, encoding: "utf8" });
    const held = stdout
      .split("\n")
      .filter((path) => /\.(key|pem)$/.test(path) || path.startsWith("image/trust/"))
      .filter((path) => /PRIVATE KEY/.test(readFileSync(join(project, path), "utf8")));
    expect(held).toEqual([]);
  });
});

describe("node image/keys.ts", () => {
  const keys = (args: string[], env: Record<string, string> = {}) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ["image/keys.ts", ...args], {
      cwd: project,
      encoding: "utf8",
      env: { PATH: process.env.PATH, ...env },
    });
    return { status, stdout, stderr };
  };

  test("makes, rotates, revokes and shows, without showing a secret", { timeout: 180_000 }, () => {
    const secret = { KEELSON_ROOT_PASSPHRASE: "root passphrase" };
    expect(keys(["root", "--root", at("r"), "--name", "Keelson root"], secret).status).toBe(0);
    const one = ["release", "--root", at("r"), "--out", at("one"), "--name", "one"];
    expect(keys(one).stderr).toContain("needs its passphrase");
    expect(keys(one, secret).stdout).toMatch(/Release key [0-9a-f]{32} \(one\), epoch 1/);
    const two = ["rotate", "--root", at("r"), "--out", at("two"), "--name", "two"];
    expect(keys(two, secret).stdout).toContain("refuse all older release keys");
    const [{ body }] = readRootFolder(at("r")).certificates;
    const revoke = ["revoke", "--root", at("r"), "--key", body.keyId, "--out", at("two")];
    expect(keys(revoke, secret).status).toBe(0);
    const shown = keys(["show", "--root", at("r")]).stdout;
    expect(shown).toMatch(
      /\(one\), epoch 1, serial 1: revoked\n.*\(two\), epoch 2, serial 2: in use/,
    );
    expect(shown).not.toContain("PRIVATE");
    expect(keys(["show", "--out", at("two")]).stdout).toContain(`1 revoked keys: ${body.keyId}`);
  });

  test.each([
    [["root"], "--root is missing"],
    [["sing"], "'sing' is no command"],
    [["show", "--out", "/nowhere"], "/nowhere/signing.json can't be read"],
    [["root", "--nmae", "x"], "--nmae"],
  ])("%j: exit 1, and says why", (args, message) => {
    const { status, stderr } = keys(args);
    expect(status).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  });
});
