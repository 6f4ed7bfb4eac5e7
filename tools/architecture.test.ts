import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";

/**
 * Arrows point one way: services -> lib/{volume,rpc,cluster-store} -> lib/{wire,aime} -> lib/model.
 * A service knows another only by its typed API (`api.ts`, types only).
 */
const root = resolve(import.meta.dirname, "..");
const maxLines = 600;
const sourceFolders = [
  "lib",
  "services",
  "native",
  "ui",
  "cli",
  "image",
  "units",
  "qa",
  "tools",
  "firmware-updater",
];

function* files(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* files(path);
    else yield path;
  }
}

const sources = sourceFolders
  .flatMap((folder) => [...files(join(root, folder))])
  .filter((path) => /\.(ts|tsx|mjs|c|h|sh)$/.test(path) && !path.includes("/etcd/gen/"));

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

/** Imports of project files and of `node:` modules, as paths from the root. */
function importsOf(path: string): Import[] {
  const text = readFileSync(path, "utf8");
  const found: Import[] = [];
  const pattern =
    /(?:^|\n)\s*(?:import|export)\s+(type\s+)?(?:[^;"']*?\sfrom\s+)?["']([^"']+)["']/g;
  for (const match of text.matchAll(pattern)) {
    const specifier = match[2];
    const from = relative(root, path);
    const typeOnly = match[1] !== undefined;
    if (specifier === "#native") found.push({ from, to: "native/index.ts", typeOnly });
    else if (specifier.startsWith("#")) found.push({ from, to: specifier.slice(1), typeOnly });
    else if (specifier.startsWith(".")) {
      found.push({ from, to: relative(root, join(dirname(path), specifier)), typeOnly });
    } else found.push({ from, to: specifier, typeOnly });
  }
  return found;
}

const production = sources.filter((path) => !/\.test\.tsx?$/.test(path) && /\.tsx?$/.test(path));
const imports = production.flatMap(importsOf);

/** folder -> what it may import, beside npm packages. */
const mayImport: [folder: string, allowed: string[]][] = [
  ["lib/model/", ["lib/model/"]],
  ["lib/wire/", ["lib/wire/", "lib/model/", "node:crypto"]],
  ["lib/aime/", ["lib/aime/", "lib/model/"]],
  ["lib/sim/", ["lib/sim/", "lib/model/", "lib/wire/", "lib/volume/"]],
  ["lib/volume/", ["lib/volume/", "lib/wire/", "lib/model/", "native/", "node:"]],
  ["lib/cluster-store/", ["lib/cluster-store/", "lib/model/", "node:"]],
  ["lib/rpc/", ["lib/rpc/", "lib/model/", "node:"]],
  ["lib/", ["lib/", "node:", "native/"]],
  ["native/", ["native/", "lib/model/", "node:"]],
  ["ui/", ["ui/", "lib/model/", "services/api/"]],
];

function violates(rule: [string, string[]], edge: Import): boolean {
  const [folder, allowed] = rule;
  if (!edge.from.startsWith(folder)) return false;
  const internal =
    edge.to.startsWith("node:") || sourceFolders.some((name) => edge.to.startsWith(`${name}/`));
  return internal && !allowed.some((prefix) => edge.to.startsWith(prefix));
}

describe("architecture", () => {
  test("a folder of lib imports only what lies below it", () => {
    const bad = imports.filter((edge) => {
      const rule = mayImport.find(([folder]) => edge.from.startsWith(folder));
      return rule !== undefined && violates(rule, edge);
    });
    expect(bad.map((edge) => `${edge.from} -> ${edge.to}`)).toEqual([]);
  });

  test("a service knows another only by the types of its api.ts and its schemas", () => {
    // firmware-updater/ is a service too, in a folder that the product's outline names.
    const folder = /^(?:services\/([^/]+)|(firmware-updater))\/(.*)$/;
    const bad = imports.filter((edge) => {
      const match = folder.exec(edge.from);
      const from = match?.[1] ?? match?.[2];
      const target = folder.exec(edge.to);
      const to = target === null ? null : [edge.to, target[1] ?? target[2], target[3]];
      if (from === undefined || to === null || to[1] === from) return false;
      return !(edge.typeOnly && /^(api|([a-z]+-)?schema)\.ts$/.test(to[2]));
    });
    expect(bad.map((edge) => `${edge.from} -> ${edge.to}`)).toEqual([]);
  });

  test("product code does not import tools or qa", () => {
    const bad = imports.filter(
      (edge) =>
        /^(lib|services|native|ui|cli|firmware-updater)\//.test(edge.from) &&
        /^(tools|qa)\//.test(edge.to),
    );
    expect(bad.map((edge) => `${edge.from} -> ${edge.to}`)).toEqual([]);
  });

  test("every file can be read in a sitting", () => {
    const long = sources
      .map((path) => ({
        path: relative(root, path),
        lines: readFileSync(path, "utf8").split("\n").length,
      }))
      .filter(({ lines }) => lines > maxLines);
    expect(long).toEqual([]);
  });

  test("no stray markers of unfinished work", () => {
    const marker = new RegExp(
      `\\b(${["TO", "FIX", "XX"].map((word, i) => word + ["DO", "ME", "X"][i]).join("|")})\\b`,
    );
    const bad = sources.filter((path) => marker.test(readFileSync(path, "utf8")));
    expect(bad.map((path) => relative(root, path))).toEqual([]);
  });

  test("every service has a README of one screen", () => {
    const services = readdirSync(join(root, "services"), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => `services/${name}`);
    for (const name of [...services, "firmware-updater"]) {
      const lines = readFileSync(join(root, name, "README.md"), "utf8").split("\n").length;
      expect(lines, name).toBeLessThanOrEqual(60);
    }
  });
});
