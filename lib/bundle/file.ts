/**
 * Bundles in files. A bundle is read twice: once to check all of it, and only then to use it, from
 * the same open file and with every check again, so that nothing is written of a bad one and
 * nothing slips in between.
 */
import { type FileHandle, open } from "node:fs/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import { BundleError } from "./errors.ts";
import type { BundleManifest } from "./manifest.ts";
import { type BundleReader, type PartReader, pieceBytes, readBundle } from "./reader.ts";
import type { Signer } from "./signature.ts";
import type { BundleTarget } from "./target.ts";
import type { Trust } from "./trust.ts";

export interface VerifiedBundle {
  readonly manifest: BundleManifest;
  readonly signer: Signer;
  readonly totalBytes: number;
}

export interface ReadOptions {
  /** Called after each piece with the bytes of parts since the last call. */
  readonly advance?: ((bytes: number) => void) | undefined;
  /** Ends the reading with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Checks everything in the file. Throws BundleError; NOT_FOUND or MEDIA_ERROR if it can't be read. */
export async function verifyBundle(
  path: string,
  trust: Trust,
  target?: BundleTarget,
  options: ReadOptions = {},
): Promise<VerifiedBundle> {
  await using opened = await openBundle(path);
  return await verifyOpened(opened, trust, target, options);
}

/** Only what comes before the parts: manifest and signer. The parts stay unchecked. */
export async function inspectBundle(
  path: string,
  trust: Trust,
  target?: BundleTarget,
): Promise<VerifiedBundle> {
  await using opened = await openBundle(path);
  const { manifest, signer, totalBytes } = await openedReader(opened, trust, target);
  return { manifest, signer, totalBytes };
}

/**
 * Checks the whole file, then calls `use` with each part in order, read and checked a second time.
 * `use` is not called at all for a bundle that isn't right in every byte.
 */
export async function unpackBundle(
  path: string,
  trust: Trust,
  target: BundleTarget,
  use: (part: PartReader, manifest: BundleManifest) => Promise<void>,
  options: ReadOptions = {},
): Promise<VerifiedBundle> {
  await using opened = await openBundle(path);
  const verified = await verifyOpened(opened, trust, target, options);
  const reader = await openedReader(opened, trust, target, options.signal);
  for await (const part of reader.parts()) await use(part, reader.manifest);
  return verified;
}

interface OpenedBundle {
  readonly path: string;
  readonly file: FileHandle;
  readonly sizeBytes: number;
}

async function openBundle(path: string): Promise<OpenedBundle & AsyncDisposable> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (cause) {
    throw new KeelsonError("NOT_FOUND", `${path} can't be read: ${(cause as Error).message}.`, {
      operation: "read bundle",
      object: path,
      cause,
    });
  }
  try {
    const status = await file.stat();
    if (!status.isFile()) {
      throw new BundleError("not-a-bundle", `${path} is not a file.`, { object: path });
    }
    const sizeBytes = status.size;
    return { path, file, sizeBytes, [Symbol.asyncDispose]: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function verifyOpened(
  opened: OpenedBundle,
  trust: Trust,
  target: BundleTarget | undefined,
  { advance, signal }: ReadOptions,
): Promise<VerifiedBundle> {
  const reader = await openedReader(opened, trust, target, signal);
  for await (const { pieces } of reader.parts()) {
    for await (const piece of pieces) advance?.(piece.length);
  }
  const { manifest, signer, totalBytes } = reader;
  return { manifest, signer, totalBytes };
}

/** A file's size is known: one that is cut off is refused before its parts are read. */
async function openedReader(
  opened: OpenedBundle,
  trust: Trust,
  target: BundleTarget | undefined,
  signal?: AbortSignal,
): Promise<BundleReader> {
  const reader = await readBundle(filePieces(opened, signal), trust, target);
  const { sizeBytes } = opened;
  if (sizeBytes < reader.totalBytes) {
    throw new BundleError(
      "truncated",
      `The bundle is not complete: ${sizeBytes} of ${reader.totalBytes} bytes are there.`,
      { remedy: "The download or the copy was cut off: get it again.", object: opened.path },
    );
  }
  if (sizeBytes > reader.totalBytes) {
    throw new BundleError(
      "trailing-bytes",
      `The bundle goes on after its last part: ${sizeBytes} bytes instead of ${reader.totalBytes}.`,
      { remedy: "The file is damaged: get it again.", object: opened.path },
    );
  }
  return reader;
}

/** From the start of the file, through one buffer. */
async function* filePieces({ path, file }: OpenedBundle, signal?: AbortSignal) {
  const buffer = Buffer.allocUnsafe(pieceBytes);
  for (let position = 0; ; ) {
    signal?.throwIfAborted();
    let count: number;
    try {
      count = (await file.read(buffer, 0, buffer.length, position)).bytesRead;
    } catch (cause) {
      throw new KeelsonError(
        "MEDIA_ERROR",
        `${path} can't be read at byte ${position}: ${(cause as Error).message}.`,
        {
          operation: "read bundle",
          object: path,
          remedy: "If it is on a stick, is the stick still there? Copy the file again.",
          cause,
        },
      );
    }
    if (count === 0) return;
    position += count;
    yield buffer.subarray(0, count);
  }
}
