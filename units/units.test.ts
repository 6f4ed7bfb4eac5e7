import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parsePortDeclaration } from "#lib/network/ports.ts";
import { parseSysusers } from "../image/accounts.ts";

const project = resolve(import.meta.dirname, "..");
const folder = join(project, "units/system");
const names = readdirSync(folder).filter((name) => /\.(service|target|path)$/.test(name));
const services = names.filter((name) => name.endsWith(".service"));
const read = (name: string) => readFileSync(join(folder, name), "utf8");
const values = (text: string, key: string) =>
  [...text.matchAll(new RegExp(`^${key}=(.*)$`, "gm"))].map((match) => match[1]);

/** systemd's exposure level, 0 (best) to 10: docs/decisions/0134-units-at-most-3.md. */
const exposureMax = 3;
/** Why a unit has no sandbox. */
const open: Record<string, string> = {
  "keelson-shell@.service": "root's shell, for repair: started by hand with admin's password",
};

describe("units", () => {
  let root = "";

  /** A root that holds these units, the machine's own, and something at each program's path. */
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "keelson-units-"));
    const units = join(root, "usr/lib/systemd/system");
    mkdirSync(units, { recursive: true });
    cpSync("/usr/lib/systemd/system", units, { recursive: true, verbatimSymlinks: true });
    symlinkSync("usr/lib", join(root, "lib"));
    for (const name of names) writeFileSync(join(units, name), read(name));
    for (const name of services) {
      const lines = ["ExecStart", "ExecStartPost"].flatMap((key) => values(read(name), key));
      for (const line of lines) {
        const program = join(root, line.split(" ")[0].replace(/^[-+]+/, ""));
        mkdirSync(resolve(program, ".."), { recursive: true });
        writeFileSync(program, "#!/bin/sh\n");
        chmodSync(program, 0o755);
      }
    }
  });
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  const verify = () => {
    const result = spawnSync("systemd-analyze", [`--root=${root}`, "verify", ...names], {
      encoding: "utf8",
      env: { ...process.env, LC_ALL: "C" },
    });
    const complaints = result.stderr.split("\n").filter((line) => line.includes("keelson"));
    return { ...result, complaints };
  };

  test("systemd understands every line", () => {
    const { complaints } = verify();
    expect(complaints).toEqual([]);
  });

  test("a misspelt setting would be found", () => {
    const path = join(root, "usr/lib/systemd/system/keelson-api.service");
    writeFileSync(path, read("keelson-api.service").replace("ProtectHome=", "ProtectHouse="));
    try {
      expect(verify().complaints.join("\n")).toContain("ProtectHouse");
    } finally {
      writeFileSync(path, read("keelson-api.service"));
    }
  });

  test.each(services)("%s is sandboxed", (name) => {
    const result = spawnSync(
      "systemd-analyze",
      ["security", "--offline=true", "--no-pager", join(folder, name)],
      { encoding: "utf8", env: { ...process.env, LC_ALL: "C.UTF-8" } },
    );
    const level = /Overall exposure level for \S+: ([0-9.]+)/.exec(result.stdout)?.[1];
    if (name in open) return expect(Number(level)).toBeGreaterThan(exposureMax);
    expect(Number(level), result.stderr).toBeLessThanOrEqual(exposureMax);
  });

  test("a unit without its sandbox would be found", () => {
    const path = join(root, "open.service");
    writeFileSync(path, "[Service]\nExecStart=/bin/true\n");
    const { stdout } = spawnSync(
      "systemd-analyze",
      ["security", "--offline=true", "--no-pager", path],
      { encoding: "utf8", env: { ...process.env, LC_ALL: "C.UTF-8" } },
    );
    expect(Number(/level for \S+: ([0-9.]+)/.exec(stdout)?.[1])).toBeGreaterThan(exposureMax);
  });

  test.each(services)("%s names users and groups that the image has", (name) => {
    const { accounts } = parseSysusers(
      readFileSync(join(project, "units/sysusers.d/keelson.conf"), "utf8"),
    );
    const known = accounts.map((account) => account.name);
    const text = read(name);
    for (const key of ["User", "Group", "SupplementaryGroups"]) {
      for (const value of values(text, key).flatMap((line) => line.split(" "))) {
        expect(known).toContain(value);
      }
    }
  });

  test.each(services)("%s starts its service with options that it has", (name) => {
    for (const line of values(read(name), "ExecStart")) {
      const service = /services\/([a-z-]+)\.js/.exec(line)?.[1];
      if (service === undefined) continue;
      const main = join(
        project,
        service === "firmware-updater" ? service : join("services", service),
        "main.ts",
      );
      expect(existsSync(main), main).toBe(true);
      const text = readFileSync(main, "utf8");
      // What stands before the program is Node's.
      const given = line.slice(line.indexOf(".js"));
      for (const [, flag] of given.matchAll(/ --([a-z-]+)/g)) {
        expect(text, `--${flag}`).toMatch(new RegExp(`["']?${flag}["']?: \\{ type:`));
      }
    }
  });

  test("what a service opens is declared under its own name, and by one file", () => {
    const declared = readdirSync(join(project, "units/ports.d")).map((name) => {
      const path = join(project, "units/ports.d", name);
      const { service } = parsePortDeclaration(readFileSync(path, "utf8"), name);
      expect(name).toBe(`${service}.json`);
      return `keelson-${service}.service`;
    });
    for (const name of declared) expect(services).toContain(name);
    // Whoever may bind a port below 1024 does so for others.
    const binding = services.filter((name) => read(name).includes("CAP_NET_BIND_SERVICE"));
    expect(declared).toEqual(expect.arrayContaining(binding));
  });

  test("what starts at boot is what the preset enables", () => {
    const preset = readFileSync(
      join(project, "image/files/usr/lib/systemd/system-preset/00-keelson.preset"),
      "utf8",
    );
    const installed = names.filter((name) => read(name).includes("\n[Install]\n"));
    for (const name of installed) expect(preset).toContain(`enable ${name}\n`);
    for (const [, name] of preset.matchAll(/^enable (keelson\S+)$/gm)) {
      expect(names).toContain(name);
    }
  });

  test("each service of the target gets its own user, a watchdog and is started again", () => {
    const targets = values(read("keelson.target"), "Wants").flatMap((line) => line.split(" "));
    expect(targets.length).toBeGreaterThan(3);
    const users = targets.flatMap((name) => values(read(name), "User"));
    expect(new Set(users).size).toBe(targets.length);
    for (const name of targets) {
      expect(values(read(name), "Restart"), name).toEqual(["always"]);
      expect(values(read(name), "Type"), name).toEqual(["notify"]);
      // etcd answers systemd's start, but has no watchdog of its own.
      if (name !== "keelson-cluster-store.service") {
        expect(values(read(name), "WatchdogSec"), name).toHaveLength(1);
      }
    }
  });
});
