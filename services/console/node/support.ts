/**
 * The support bundle: what somebody far away needs to see of a node, without its secrets. Settings
 * are taken apart and put together again from names that are known to hold none; lines of the
 * journal that look like one are blanked.
 */
import { execFile } from "node:child_process";
import { createWriteStream, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { createGzip } from "node:zlib";
import { pack } from "tar-stream";
import type { NodeFacts } from "./facts.ts";
import { readJournal } from "./journal.ts";

const run = promisify(execFile);
const journalLines = 20_000;

export const supportFolder = (runFolder: string) => join(runFolder, "api/support");

export interface SupportSources {
  readonly run: string;
  readonly state: string;
  readonly facts: NodeFacts;
}

const commands: readonly (readonly [name: string, ...command: string[]])[] = [
  ["units.txt", "systemctl", "list-units", "--all", "--no-pager", "--no-legend"],
  ["failed.txt", "systemctl", "--failed", "--no-pager"],
  ["disks.json", "lsblk", "--json", "--bytes", "--output-all"],
  ["time.txt", "systemd-analyze", "time"],
  ["space.txt", "df", "-h"],
  ["memory.txt", "cat", "/proc/meminfo"],
  ["kernel-line.txt", "cat", "/proc/cmdline"],
];

/** Makes the bundle in the folder that api offers downloads from; an older one goes. */
export async function makeSupportBundle(
  sources: SupportSources,
): Promise<{ readonly path: string; readonly name: string }> {
  const folder = supportFolder(sources.run);
  mkdirSync(folder, { recursive: true, mode: 0o750 });
  for (const old of readdirSync(folder)) rmSync(join(folder, old), { force: true });
  const stamp = new Date().toISOString().replaceAll(/[-:]|\..*/g, "");
  const node = sources.facts.name || "keelson";
  const name = `${node}-support-${stamp}.tar.gz`;
  const files = await collect(sources);
  const archive = pack();
  const path = join(folder, name);
  const written = pipeline(archive, createGzip(), createWriteStream(path, { mode: 0o644 }));
  for (const [file, text] of files)
    archive.entry({ name: `${node}-support/${file}` }, redact(text));
  archive.finalize();
  await written;
  return { path, name };
}

async function collect({ state, facts }: SupportSources): Promise<[string, string][]> {
  const outputs = await Promise.all(
    commands.map(async ([file, program, ...arguments_]): Promise<[string, string]> => {
      const result = await run(program, arguments_, { maxBuffer: 16 << 20 }).catch(
        (error: Error) => ({ stdout: `${error.message}\n` }),
      );
      return [file, result.stdout];
    }),
  );
  const journal = await readJournal("", journalLines).catch((error: Error) => [error.message]);
  return [
    ["node.json", JSON.stringify(withoutSecrets(readJson(join(state, "node.json"))), null, 2)],
    ["facts.json", JSON.stringify(withoutSecrets(facts), null, 2)],
    ...outputs,
    ["journal.txt", `${journal.join("\n")}\n`],
  ];
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    return { unreadable: (error as Error).message };
  }
}

const secretName = /pass|secret|hash$|token|key|chap|credential|cookie|seed|recovery|otp/i;
export const redacted = "(taken out)";

/** The value without what a name says is a secret, at any depth. */
export function withoutSecrets(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutSecrets);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [
      name,
      secretName.test(name) && inner !== null && inner !== undefined
        ? redacted
        : withoutSecrets(inner),
    ]),
  );
}

const secretTexts: readonly RegExp[] = [
  /\$(?:argon2id|6|5|y|2[aby])\$[^\s"',]+/g,
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----/g,
  /\b(?:Bearer|Basic)\s+[\w.~+/=-]{8,}/gi,
  /\b((?:[\w.-]*(?:password|passwd|secret|token|chap|api[-_]?key))["']?\s*[=:]\s*["']?)(?!\(taken)[^\s"',;&]+/gi,
  /(\/\/[^\s/:@]+:)[^\s/@]+(?=@)/g,
  /\bkeelson\.answers=\S+/g,
];

/** Text without what looks like a secret in it. */
export function redact(text: string): string {
  return secretTexts.reduce(
    (rest, pattern) =>
      rest.replaceAll(pattern, (whole, before?: unknown) =>
        typeof before === "string" && whole.startsWith(before) ? `${before}${redacted}` : redacted,
      ),
    text,
  );
}
