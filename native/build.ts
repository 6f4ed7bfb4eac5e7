/**
 * Compiles the addon into build/keelson.node when a source or a flag is newer; at once otherwise.
 * gcc is all it needs. Without gcc, or where compiling fails, it says so and the services run on
 * their fall-backs.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

const root = join(import.meta.dirname, "..");
const flags = [
  "-O2",
  "-g",
  "-std=gnu11",
  "-D_GNU_SOURCE",
  "-fPIC",
  "-shared",
  "-pthread",
  "-fvisibility=hidden",
  "-fstack-protector-strong",
  "-Wall",
  "-Wextra",
  "-Wl,-z,relro,-z,now",
];

export interface AddonBuild {
  readonly compiler?: string;
  /** Where node_api.h is. */
  readonly include?: string;
  /** The image passes flags that fix paths and drop the build id. */
  readonly extraFlags?: readonly string[];
}

export function addonSources(): string[] {
  return readdirSync(import.meta.dirname)
    .filter((name) => /\.[ch]$/.test(name))
    .sort()
    .map((name) => join(import.meta.dirname, name));
}

/** The command that compiles the addon into `output`. */
export function addonCommand(output: string, options: AddonBuild = {}): string[] {
  return [
    options.compiler ?? "gcc",
    ...flags,
    ...(options.extraFlags ?? []),
    "-I",
    options.include ?? join(root, "node_modules/node-api-headers/include"),
    "-o",
    output,
    ...addonSources().filter((path) => path.endsWith(".c")),
  ];
}

/** True if build/keelson.node stands; compiles it first where it is missing or out of date. */
export function buildAddon(output = join(root, "build/keelson.node")): boolean {
  const stamp = `${output}.stamp`;
  const digest = createHash("sha256").update(addonCommand(output).join("\0"));
  for (const path of addonSources()) digest.update(readFileSync(path));
  const wanted = digest.digest("hex");
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, "utf8") === wanted)
    return true;
  mkdirSync(dirname(output), { recursive: true });
  // Compiled aside and renamed: a process that has the old one mapped keeps it.
  const next = `${output}.${process.pid}.new`;
  const [compiler, ...args] = addonCommand(next);
  const result = spawnSync(compiler, args, { stdio: ["ignore", 2, 2] });
  if (result.error !== undefined) {
    console.error(
      `keelson: the addon was not built (${compiler}: ${result.error.message}); services run slower without it. Install gcc and libc6-dev.`,
    );
    return false;
  }
  if (result.status !== 0) {
    console.error("keelson: the addon did not compile; services run slower without it.");
    return false;
  }
  renameSync(next, output);
  writeFileSync(stamp, wanted);
  return true;
}

if (import.meta.main && process.env.KEELSON_NO_NATIVE === undefined) buildAddon();
