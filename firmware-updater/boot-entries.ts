/**
 * What the two boot loaders go by, on the ESP.
 *
 *   UEFI   EFI/Linux/keelson_VERSION.efi       has worked: boots always
 *          EFI/Linux/keelson_VERSION+3.efi     three tries left; systemd-boot counts in the name
 *          EFI/Linux/keelson_VERSION+0-3.efi   none left: comes after all others
 *   BIOS   keelson/grubenv                     ORDER, and OK and TRY of each slot
 *          keelson/<slot>/slot.cfg             and the kernel, initrd and microcode it names
 *
 * systemd-boot takes the highest version that has tries left. Each change that decides what boots
 * next is the write of one sector: a UKI's first one, or grubenv's.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { chunkBytes, type Files } from "./files.ts";
import type { SlotName } from "./schema.ts";
import { headSectorBytes, rootHashOfUki } from "./uki.ts";

export const tries = 3;
const grubenvBytes = 1024;

export interface UkiEntry {
  readonly path: string;
  readonly version: string;
  /** Null: not counted, it has worked. */
  readonly triesLeft: number | null;
  /** Undefined: not bootable, its first sector is zeroed or it is no UKI. */
  readonly rootHash: string | undefined;
}

export function ukiFolder(esp: string): string {
  return join(esp, "EFI/Linux");
}

export function ukiPath(esp: string, version: string, triesLeft: number | null): string {
  const count = triesLeft === null ? "" : `+${triesLeft}`;
  return join(ukiFolder(esp), `keelson_${version}${count}.efi`);
}

export function readUkiEntries(files: Files, esp: string): UkiEntry[] {
  const folder = ukiFolder(esp);
  return files.list(folder).flatMap((name) => {
    const match = /^keelson_(.+?)(?:\+(\d{1,3})(?:-\d{1,3})?)?\.efi$/i.exec(name);
    if (match === null) return [];
    const path = join(folder, name);
    return [
      {
        path,
        version: match[1],
        triesLeft: match[2] === undefined ? null : Number(match[2]),
        rootHash: rootHashOfUki(files, path),
      },
    ];
  });
}

/**
 * Writes a file that nothing looks at yet and reads it back: name and bytes are durable when this
 * returns. MEDIA_ERROR if it reads back differently, NO_SPACE.
 */
export async function writeWhole(
  files: Files,
  path: string,
  pieces: AsyncIterable<Uint8Array>,
): Promise<void> {
  removeFile(files, path);
  files.create(path);
  await writeAndCompare(files, path, pieces);
  files.syncFolder(join(path, ".."));
}

/**
 * A UKI under its name, complete but for its first sector, which is returned: no boot loader takes
 * the file without it.
 */
export async function writeDormantUki(
  files: Files,
  path: string,
  pieces: AsyncIterable<Uint8Array>,
): Promise<Buffer> {
  const head = Buffer.alloc(headSectorBytes);
  await writeWhole(files, path, withoutHead(pieces, head));
  return head;
}

async function* withoutHead(pieces: AsyncIterable<Uint8Array>, head: Buffer) {
  let at = 0;
  for await (const piece of pieces) {
    if (at >= headSectorBytes) yield piece;
    else {
      const dormant = Buffer.from(piece);
      dormant.copy(head, at, 0, headSectorBytes - at);
      dormant.fill(0, 0, headSectorBytes - at);
      yield dormant;
    }
    at += piece.length;
  }
}

/** From here on the boot loader sees it. */
export function wakeUki(files: Files, path: string, head: Uint8Array): void {
  files.write(path, 0, head);
  files.sync(path);
}

/** A copy of an entry under another name, visible as a whole or not at all. */
export async function copyUki(files: Files, from: string, to: string): Promise<void> {
  wakeUki(files, to, await writeDormantUki(files, to, piecesOf(files, from)));
}

export async function* piecesOf(files: Files, path: string): AsyncGenerator<Buffer> {
  const size = files.size(path) ?? 0;
  for (let at = 0; at < size; at += chunkBytes) {
    yield files.read(path, at, Math.min(chunkBytes, size - at));
  }
}

/** Takes an entry away: first its mark, durably, then its name. */
export function removeUki(files: Files, path: string): void {
  if ((files.size(path) ?? 0) > 0) {
    files.write(path, 0, Buffer.alloc(headSectorBytes));
    files.sync(path);
  }
  removeFile(files, path);
}

export function removeFile(files: Files, path: string): void {
  if (files.size(path) === undefined) return;
  files.remove(path);
  // Its clusters must not be used again while the name may come back.
  files.syncFolder(join(path, ".."));
}

/** A sync this often keeps the progress true, and the memory free. */
const syncBytes = 32 << 20;

/** Writes from the start of a file or partition, syncs, and compares with what the medium gives. */
export async function writeAndCompare(
  files: Files,
  path: string,
  pieces: AsyncIterable<Uint8Array>,
  advance: (bytes: number) => void = () => {},
): Promise<void> {
  const written = createHash("sha256");
  let length = 0;
  let unsynced = 0;
  for await (const piece of pieces) {
    written.update(piece);
    files.write(path, length, piece);
    length += piece.length;
    unsynced += piece.length;
    if (unsynced >= syncBytes) {
      files.sync(path);
      unsynced = 0;
    }
    advance(piece.length);
    await new Promise((resolve) => setImmediate(resolve));
  }
  files.sync(path);
  const found = createHash("sha256");
  for (let at = 0; at < length; at += chunkBytes) {
    const piece = files.readBack(path, at, Math.min(chunkBytes, length - at));
    found.update(piece);
    advance(piece.length);
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (found.digest().equals(written.digest())) return;
  throw new KeelsonError("MEDIA_ERROR", `${path} does not read back as it was written.`, {
    operation: "verify what was written",
    object: path,
    remedy: "The running version is untouched. Check the boot disk, its cable and the memory.",
  });
}

/** GRUB's environment block of an installed disk. */
export interface GrubEnvironment {
  /** The slot tried first. */
  readonly first: SlotName;
  readonly ok: Readonly<Record<SlotName, boolean>>;
  readonly tries: Readonly<Record<SlotName, number>>;
}

export function grubenvPath(esp: string): string {
  return join(esp, "keelson/grubenv");
}

export function readGrubenv(files: Files, esp: string): GrubEnvironment {
  const path = grubenvPath(esp);
  const text = files.size(path) === undefined ? "" : files.read(path, 0, grubenvBytes).toString();
  const value = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(text)?.[1] ?? "";
  return {
    first: value("ORDER").startsWith("b") ? "b" : "a",
    ok: { a: value("a_OK") === "1", b: value("b_OK") === "1" },
    tries: { a: triesOf(value("a_TRY")), b: triesOf(value("b_TRY")) },
  };
}

function triesOf(text: string): number {
  return /^[0-3]$/.test(text) ? Number(text) : 0;
}

/** In place: the block's lines fit into its first sector, so it changes as a whole. */
export function writeGrubenv(files: Files, esp: string, environment: GrubEnvironment): void {
  const { first, ok, tries: left } = environment;
  const text = [
    "# GRUB Environment Block",
    `ORDER=${first} ${first === "a" ? "b" : "a"}`,
    ...(["a", "b"] as const).flatMap((slot) => [
      `${slot}_OK=${ok[slot] ? 1 : 0}`,
      `${slot}_TRY=${left[slot]}`,
    ]),
    "",
  ].join("\n");
  const path = grubenvPath(esp);
  files.write(path, 0, Buffer.from(text.padEnd(grubenvBytes, "#")));
  files.sync(path);
}
