/** Where answers come from: the kernel line first, then a medium labelled KEELSON-SEED. */
import { existsSync, mkdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { answerFileName, seedLabel, shortSeedLabel } from "#lib/answer-file/answer-file.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Command } from "./command.ts";

export const answersParameter = "keelson.answers";
/** An answer file is a page of text; what is larger is something else. */
export const answersLimitBytes = 256 * 1024;

export interface FoundAnswers {
  readonly text: string;
  /** For messages: where it came from. */
  readonly name: string;
}

/** Value of `name=` on a kernel line, quotes removed; the last one counts. */
export function kernelParameter(line: string, name: string): string | undefined {
  const words = line.match(/(?:[^\s"]|"[^"]*")+/g) ?? [];
  const found = words.filter((word) => word.replaceAll('"', "").startsWith(`${name}=`)).pop();
  return found?.replaceAll('"', "").slice(name.length + 1);
}

export type AnswersPlace =
  | { readonly kind: "url"; readonly url: string }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "inline"; readonly text: string };

/** What a parameter's value means; INVALID_ARGUMENT if it is neither URL, path nor base64. */
export function answersPlace(value: string): AnswersPlace {
  if (/^https?:\/\//.test(value)) return { kind: "url", url: value };
  if (value.startsWith("/")) return { kind: "file", path: value };
  if (/^[A-Za-z0-9+/_-]+={0,2}$/.test(value)) {
    const text = Buffer.from(value, "base64").toString("utf8");
    if (/^\s*[{/]/.test(text)) return { kind: "inline", text };
  }
  throw new KeelsonError(
    "INVALID_ARGUMENT",
    `${answersParameter} on the kernel line is neither an http(s) URL, a path, nor base64 of an answer file.`,
    { remedy: "Correct it in the boot menu (key e)." },
  );
}

/** Answers of the kernel line; UNAVAILABLE while a URL doesn't answer. */
export async function readPlace(place: AnswersPlace): Promise<FoundAnswers> {
  switch (place.kind) {
    case "inline":
      return { text: place.text, name: `${answersParameter} on the kernel line` };
    case "file":
      return { text: readLimited(place.path), name: place.path };
    case "url":
      return { text: await download(place.url), name: place.url };
  }
}

async function download(url: string): Promise<string> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(15_000) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const text = await response.text();
    if (text.length > answersLimitBytes) throw new Error(`more than ${answersLimitBytes} bytes`);
    return text;
  } catch (cause) {
    const { message, cause: deeper } = cause as Error & { cause?: Error };
    throw new KeelsonError("UNAVAILABLE", `${url}: ${deeper?.message ?? message}.`, {
      operation: "fetch answers",
      object: url,
      remedy: "Trying again.",
      cause,
    });
  }
}

/** Answers of the seed medium; undefined if none is attached. */
export async function readSeed(scratch: string, run: Command): Promise<FoundAnswers | undefined> {
  const link = [seedLabel, shortSeedLabel]
    .map((label) => `/dev/disk/by-label/${label}`)
    .find((path) => existsSync(path));
  if (link === undefined) return undefined;
  const folder = join(scratch, "seed");
  mkdirSync(folder, { recursive: true });
  const name = `${answerFileName} on ${seedLabel} (${realpathSync(link)})`;
  try {
    await run("mount", ["-o", "ro,nodev,nosuid,noexec", link, folder]);
  } catch (cause) {
    throw new KeelsonError("FORMAT_CORRUPT", `The medium ${seedLabel} can't be mounted.`, {
      remedy: "Use vfat, iso9660 or ext4.",
      cause,
    });
  }
  try {
    return { text: readLimited(join(folder, answerFileName)), name };
  } finally {
    await run("umount", [folder]);
  }
}

function readLimited(path: string): string {
  try {
    if (statSync(path).size > answersLimitBytes) {
      throw new Error(`it is larger than ${answersLimitBytes} bytes`);
    }
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new KeelsonError("NOT_FOUND", `No answers from ${path}: ${(cause as Error).message}.`, {
      remedy: `The file must be called ${answerFileName} and lie at the top of the medium.`,
      cause,
    });
  }
}
