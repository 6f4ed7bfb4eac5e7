/** The real script with the real systemd-creds; its folders and the host key are the test's own. */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const script = resolve(import.meta.dirname, "bin/secret-key");
const names = ["api", "iscsi-target"];
let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-secret-key-"));
  mkdirSync(join(folder, "host"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const environment = () => ({
  PATH: process.env.PATH ?? "",
  LC_ALL: "C",
  KEELSON_SECRET_KEPT: join(folder, "kept"),
  KEELSON_SECRET_NOW: join(folder, "now"),
  SYSTEMD_CREDENTIAL_SECRET: join(folder, "host", "credential.secret"),
});
const run = (verb: string) => {
  const { status, stderr } = spawnSync("sh", [script, verb], {
    encoding: "utf8",
    env: environment(),
  });
  return { status, stderr };
};
/** As systemd opens it for the service. */
const key = (name: string, place = "now") => {
  const { status, stdout } = spawnSync(
    "systemd-creds",
    ["decrypt", `--name=${name}.key`, join(folder, place, `${name}.cred`), "-"],
    { env: environment() },
  );
  return status === 0 ? stdout.toString("hex") : undefined;
};

describe.runIf(process.getuid?.() === 0)("secret-key", () => {
  test("makes 32 bytes for each service, private and sealed, and keeps them", () => {
    expect(run("ensure").status).toBe(0);
    const first = names.map((name) => key(name));
    expect(first.every((each) => each?.length === 64)).toBe(true);
    expect(new Set(first).size).toBe(names.length);
    for (const place of ["kept", "now"]) {
      for (const file of readdirSync(join(folder, place))) {
        const path = join(folder, place, file);
        expect(statSync(path).mode & 0o777, file).toBe(0o600);
        for (const each of first) {
          expect(readFileSync(path).includes(Buffer.from(each!, "hex")), file).toBe(false);
        }
      }
    }
    rmSync(join(folder, "now"), { recursive: true });
    expect(run("ensure").status).toBe(0);
    expect(names.map((name) => key(name))).toEqual(first);
  });

  test.each([
    ["+firmware +driver +system +subsystem +libraries", 0, "tpm2"],
    ["-firmware +driver +system +subsystem +libraries", 1, "tpm2"],
    ["+firmware -driver +system +subsystem +libraries", 1, "host"],
    ["+firmware +driver +system +subsystem -libraries", 1, "host"],
    ["-firmware -driver +system -subsystem +libraries", 1, "host"],
  ])("a TPM with %s: by %s", (parts, status, sealedBy) => {
    // What it would do with a TPM is done with the host key: there is none here.
    const lines = ["partial", ...parts.split(" ")].join("\\n");
    const stand = `#!/bin/sh
if [ "$1" = has-tpm2 ]; then printf '${lines}\\n'; exit ${status}; fi
for word; do
  shift
  case $word in --with-key=host+tpm2) word=--with-key=host ;; --tpm2-pcrs=) continue ;; esac
  set -- "$@" "$word"
done
exec /usr/bin/systemd-creds "$@"
`;
    const bin = join(folder, "bin");
    mkdirSync(bin);
    writeFileSync(join(bin, "systemd-creds"), stand, { mode: 0o755 });
    const { stderr } = spawnSync("sh", [script, "ensure"], {
      encoding: "utf8",
      env: { ...environment(), PATH: `${bin}:${process.env.PATH}` },
    });
    expect(readFileSync(join(folder, "now/api.seal"), "utf8"), stderr).toBe(`${sealedBy}\n`);
    expect(key("api")).toHaveLength(64);
  });

  test("one service's key is not another's by name", () => {
    run("ensure");
    const { status } = spawnSync(
      "systemd-creds",
      ["decrypt", "--name=iscsi-target.key", join(folder, "now", "api.cred"), "-"],
      { env: environment() },
    );
    expect(status).not.toBe(0);
  });

  test("on another machine: the kept key stays, this boot gets a passing one, and it is said", () => {
    run("ensure");
    const kept = readFileSync(join(folder, "kept", "api.cred"));
    rmSync(join(folder, "host", "credential.secret"));
    const { status, stderr } = run("ensure");
    expect(status).toBe(0);
    expect(stderr).toMatch(/<3>the key of api does not open/);
    expect(readFileSync(join(folder, "kept", "api.cred"))).toEqual(kept);
    expect(key("api", "kept")).toBeUndefined();
    const passing = key("api");
    expect(passing).toHaveLength(64);
    // Only asked for by name is the old one given up.
    expect(run("renew").status).toBe(0);
    expect(key("api", "kept")).toHaveLength(64);
    expect(key("api", "kept")).toBe(key("api"));
    expect(key("api")).not.toBe(passing);
  });

  test("renew leaves a key alone that opens", () => {
    run("ensure");
    const before = key("api");
    expect(run("renew").status).toBe(0);
    expect(key("api")).toBe(before);
  });

  test("destroyed, nothing of it is left, and what comes after is another key", () => {
    run("ensure");
    const before = key("api");
    expect(run("destroy").status).toBe(0);
    expect(readdirSync(join(folder, "kept"))).toEqual([]);
    expect(readdirSync(join(folder, "now"))).toEqual([]);
    expect(existsSync(join(folder, "host", "credential.secret"))).toBe(false);
    expect(run("destroy").status).toBe(0);
    run("ensure");
    expect(key("api")).not.toBe(before);
  });

  test("a file cut off by a power cut is made anew", () => {
    mkdirSync(join(folder, "kept"));
    spawnSync("sh", [
      "-c",
      `: > ${join(folder, "kept", "api.cred")}; echo x > ${join(folder, "kept", "api.cred.new")}`,
    ]);
    expect(run("ensure").status).toBe(0);
    expect(key("api")).toHaveLength(64);
  });

  test("used wrongly it says how", () => {
    expect(run("frobnicate")).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("ensure|renew|destroy"),
    });
  });
});
