/**
 * Files with a power switch, for tests: what was not synced when the power went is there, or not,
 * sector by sector and name by name, as a seed says.
 */
import type { Files } from "./files.ts";

export class PowerCut extends Error {}

const sectorBytes = 512;

interface SimFile {
  /** Null: its name is not on the disk. */
  durable: Buffer | null;
  current: Buffer | null;
  unsynced: { readonly at: number; readonly bytes: Buffer }[];
  nameSynced: boolean;
}

interface Replacement {
  readonly from: string;
  readonly path: string;
  readonly old: SimFile | undefined;
  readonly next: SimFile;
}

export class SimFiles implements Files {
  /** Directory entries that may be on the disk or not. */
  #replacing: Replacement[] = [];
  readonly #files = new Map<string, SimFile>();
  /** Operations so far; a cut happens before the one of this number. */
  operations = 0;
  cutAt = Number.POSITIVE_INFINITY;

  /** A file that is there from the beginning. */
  put(path: string, content: Uint8Array): void {
    const bytes = Buffer.from(content);
    this.#files.set(path, {
      durable: bytes,
      current: Buffer.from(bytes),
      unsynced: [],
      nameSynced: true,
    });
  }

  /** All that is there, for a copy on a real disk. */
  contents(): [path: string, bytes: Buffer][] {
    return [...this.#files].flatMap(([path, { current }]) =>
      current === null ? [] : [[path, current] as [string, Buffer]],
    );
  }

  /** The disk as it is after the power went, with `random` (0 to 1) for what was under way. */
  afterCut(random: () => number): SimFiles {
    const next = new SimFiles();
    for (const [path, file] of this.#files) {
      // A name that was about to come or to go may or may not be there.
      const there = file.nameSynced ? file.current !== null : random() < 0.5;
      if (!there) continue;
      next.put(path, this.#survivor(file, random));
    }
    // Each of the two entries for itself: both names may stand for the new file, or none.
    for (const { from, path, old, next: file } of this.#replacing) {
      if (random() < 0.5 && old !== undefined) next.put(path, this.#survivor(old, random));
      if (random() < 0.5) next.put(from, this.#survivor(file, random));
    }
    return next;
  }

  #survivor(file: SimFile, random: () => number): Buffer {
    let content = Buffer.from(file.durable ?? Buffer.alloc(0));
    for (const { at, bytes } of file.unsynced) {
      for (let offset = 0; offset < bytes.length; ) {
        const place = at + offset;
        const length = Math.min(sectorBytes - (place % sectorBytes), bytes.length - offset);
        if (random() < 0.5) {
          if (content.length < place + length) {
            content = Buffer.concat([content, Buffer.alloc(place + length - content.length)]);
          }
          bytes.copy(content, place, offset, offset + length);
        }
        offset += length;
      }
    }
    return content;
  }

  #tick(): void {
    if (this.operations++ >= this.cutAt) throw new PowerCut();
  }

  #get(path: string): SimFile & { current: Buffer } {
    const file = this.#files.get(path);
    if (file?.current == null) throw new Error(`There is no ${path}.`);
    return file as SimFile & { current: Buffer };
  }

  size(path: string): number | undefined {
    return this.#files.get(path)?.current?.length;
  }

  list(folder: string): string[] {
    const prefix = `${folder}/`;
    return [...this.#files]
      .filter(([path, { current }]) => current !== null && path.startsWith(prefix))
      .map(([path]) => path.slice(prefix.length))
      .filter((name) => !name.includes("/"))
      .sort();
  }

  read(path: string, offsetBytes: number, lengthBytes: number): Buffer {
    return Buffer.from(this.#get(path).current.subarray(offsetBytes, offsetBytes + lengthBytes));
  }

  readBack(path: string, offsetBytes: number, lengthBytes: number): Buffer {
    return this.read(path, offsetBytes, lengthBytes);
  }

  write(path: string, offsetBytes: number, bytes: Uint8Array): void {
    const file = this.#get(path);
    const copy = Buffer.from(bytes);
    // Before the switch: the write that the cut falls into may be half done.
    file.unsynced.push({ at: offsetBytes, bytes: copy });
    this.#tick();
    const end = offsetBytes + copy.length;
    if (file.current.length < end) {
      file.current = Buffer.concat([file.current, Buffer.alloc(end - file.current.length)]);
    }
    copy.copy(file.current, offsetBytes);
  }

  create(path: string): void {
    this.#tick();
    const old = this.#files.get(path);
    if (old?.current != null) throw new Error(`${path} is there already.`);
    if (old !== undefined && !old.nameSynced) {
      throw new Error(`${path} is made again before its removal was synced.`);
    }
    this.#files.set(path, {
      durable: null,
      current: Buffer.alloc(0),
      unsynced: [],
      nameSynced: false,
    });
  }

  remove(path: string): void {
    this.#tick();
    const file = this.#get(path) as SimFile;
    file.current = null;
    file.nameSynced = false;
  }

  makeFolder(): void {}

  replace(from: string, path: string): void {
    const file = this.#get(from);
    const old = this.#files.get(path);
    // Before the switch: the cut that the renaming falls into may have done it, or a part of it.
    this.#replacing.push({ from, path, old, next: file });
    this.#files.set(path, file);
    this.#files.delete(from);
    this.#tick();
    this.sync(path);
    this.syncFolder(path.slice(0, path.lastIndexOf("/")));
    this.#replacing = this.#replacing.filter((each) => each.path !== path);
  }

  sync(path: string): void {
    this.#tick();
    const file = this.#get(path);
    file.durable = Buffer.from(file.current);
    file.unsynced = [];
  }

  syncFolder(folder: string): void {
    this.#tick();
    for (const [path, file] of this.#files) {
      if (!path.startsWith(`${folder}/`) || path.slice(folder.length + 1).includes("/")) continue;
      file.nameSynced = true;
      if (file.current === null) this.#files.delete(path);
    }
  }
}
