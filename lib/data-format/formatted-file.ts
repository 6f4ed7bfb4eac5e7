/**
 * A JSON state file with its format's number in it. What is read is of any format this version
 * knows; what is written is of the one that the node may hold now.
 */
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";
import { dataFormats, type FormatName, type FormatRange, rangeText } from "./formats.ts";
import type { HeldFormatsFile } from "./held.ts";

export interface Codec<Value> {
  readonly format: number;
  /** Throws what zod throws, or FORMAT_CORRUPT. */
  decode(document: unknown): Value;
  /** An object without the number. What the format can't say is left out. */
  encode(value: Value): object;
}

export interface FormattedFileOptions<Value> {
  readonly path: string;
  readonly name: FormatName;
  /** One for each format of `range`, oldest first. */
  readonly codecs: readonly Codec<Value>[];
  readonly held: HeldFormatsFile;
  /** The member that has the number. */
  readonly member: "version" | "format";
  /** What a person can do about a damaged file. */
  readonly remedy: string;
  readonly range?: FormatRange;
  /** The format of a file that has no number, from before it had one. */
  readonly unnumbered?: number;
}

export class FormattedFile<Value> {
  readonly #options: FormattedFileOptions<Value>;
  readonly #range: FormatRange;

  constructor(options: FormattedFileOptions<Value>) {
    this.#options = options;
    this.#range = options.range ?? dataFormats[options.name];
    const formats = options.codecs.map(({ format }) => format);
    if (formats[0] !== this.#range.oldest || formats.at(-1) !== this.#range.newest) {
      throw new KeelsonError("INTERNAL", `${options.name} has codecs ${formats.join(", ")}.`);
    }
  }

  /** Undefined if there is none. FORMAT_UNKNOWN: a newer version wrote it. FORMAT_CORRUPT. */
  read(): Value | undefined {
    return this.#decode(readStateFile(this.#options.path));
  }

  /** Replaces it as a whole, durably. */
  write(value: Value): void {
    const { path, name, held, member } = this.#options;
    const codec = this.#codecOf(held.writes(name, this.#range))!;
    const document = { [member]: codec.format, ...codec.encode(value) };
    writeStateFile(path, `${JSON.stringify(document, undefined, 2)}\n`);
  }

  /** Writes it anew if it is of an older format than may be written now. True if it was. */
  migrate(): boolean {
    const { path, name, held } = this.#options;
    const document = readStateFile(path);
    if (document === undefined) return false;
    const format = this.#formatOf(document);
    if (typeof format !== "number" || format >= held.writes(name, this.#range)) return false;
    const value = this.#decode(document);
    if (value === undefined) return false;
    this.write(value);
    return true;
  }

  #formatOf(document: unknown): unknown {
    const { member, unnumbered } = this.#options;
    return (document as Record<string, unknown> | null | undefined)?.[member] ?? unnumbered;
  }

  #codecOf(format: unknown): Codec<Value> | undefined {
    return this.#options.codecs.find((codec) => codec.format === format);
  }

  #decode(document: unknown): Value | undefined {
    if (document === undefined) return undefined;
    const { path, remedy } = this.#options;
    const format = this.#formatOf(document);
    const codec = this.#codecOf(format);
    if (codec === undefined && typeof format === "number") {
      throw new KeelsonError(
        "FORMAT_UNKNOWN",
        `${path} has format ${format}; this version reads ${rangeText(this.#range)}.`,
        { operation: "read state", object: path, remedy: "Boot the version that wrote it." },
      );
    }
    try {
      if (codec === undefined) throw new Error("it has no format's number");
      return codec.decode(document);
    } catch (cause) {
      if (isKeelsonError(cause)) throw cause;
      throw new KeelsonError("FORMAT_CORRUPT", `${path} is not as expected.`, {
        operation: "read state",
        object: path,
        remedy,
        cause,
      });
    }
  }
}
