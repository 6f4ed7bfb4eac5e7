/**
 * A unified kernel image: a PE file (Microsoft PE/COFF specification) whose sections carry what GRUB
 * takes as files. Its first sector holds the mark by which a boot loader knows it: with that sector
 * zeroed the file is no entry, with it back it is one, and a sector is written whole or not at all.
 */
import type { Files } from "./files.ts";

export const headSectorBytes = 512;
const mostHeaderBytes = 65_536;
const sectionHeaderBytes = 40;

export interface Section {
  readonly name: string;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

/** Undefined if these are not the first bytes of a PE file. */
export function sectionsOf(head: Buffer): Section[] | undefined {
  if (head.length < 64 || head.toString("latin1", 0, 2) !== "MZ") return undefined;
  const pe = head.readUInt32LE(60);
  if (pe + 24 > head.length || head.toString("latin1", pe, pe + 4) !== "PE\0\0") return undefined;
  const count = head.readUInt16LE(pe + 6);
  const first = pe + 24 + head.readUInt16LE(pe + 20);
  if (first + count * sectionHeaderBytes > head.length) return undefined;
  return Array.from({ length: count }, (_, index) => {
    const at = first + index * sectionHeaderBytes;
    const virtualBytes = head.readUInt32LE(at + 8);
    const rawBytes = head.readUInt32LE(at + 16);
    return {
      name: head.toString("latin1", at, at + 8).replace(/\0.*$/, ""),
      // The raw size is rounded up; the virtual size is what was put in.
      sizeBytes: Math.min(virtualBytes === 0 ? rawBytes : virtualBytes, rawBytes),
      offsetBytes: head.readUInt32LE(at + 20),
    };
  });
}

/** The root hash that a UKI boots; undefined if the file is none (or its head is zeroed). */
export function rootHashOfUki(files: Files, path: string): string | undefined {
  const head = files.read(path, 0, mostHeaderBytes);
  const section = sectionsOf(head)?.find(({ name }) => name === ".cmdline");
  if (section === undefined) return undefined;
  return rootHashOf(lineOf(files.read(path, section.offsetBytes, section.sizeBytes)) ?? "");
}

function lineOf(bytes: Buffer | undefined): string | undefined {
  return bytes?.toString("utf8").replace(/\0.*$/s, "").trim();
}

export function rootHashOf(line: string): string | undefined {
  return /(?:^|\s)roothash=([0-9a-f]{64})(?:\s|$)/.exec(line)?.[1];
}
