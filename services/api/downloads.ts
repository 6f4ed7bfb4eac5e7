/** Files that the console offers for one download each, by a token that only its screen showed. */
import { createHash, randomBytes } from "node:crypto";
import { createReadStream, existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Clock } from "./clock.ts";

const lifetimeMs = 15 * 60_000;
/** Typed by hand from a screen: 20 characters without those that look alike, 99 bits. */
const alphabet = "23456789abcdefghjkmnpqrstuvwxyz";

export class Downloads {
  readonly #directory: string;
  readonly #clock: Clock;
  /** By SHA-256 of the token. */
  readonly #offers = new Map<string, { readonly file: string; readonly untilMs: number }>();

  constructor(directory: string, clock: Clock) {
    this.#directory = directory;
    this.#clock = clock;
  }

  /** A token for a file of the directory; earlier ones end. */
  offer(file: string): string {
    if (!existsSync(join(this.#directory, file))) {
      throw new KeelsonError("NOT_FOUND", `There is no ${file} to download.`, { object: file });
    }
    const bytes = randomBytes(64).filter((byte) => byte < 248);
    const token = Array.from(bytes.subarray(0, 20), (byte) => alphabet[byte % 31]).join("");
    this.#offers.clear();
    this.#offers.set(digestOf(token), { file, untilMs: this.#clock.bootMs() + lifetimeMs });
    return token;
  }

  /** The file, once; NOT_FOUND for any other token, and afterwards. */
  take(token: string): { file: string; sizeBytes: number; body: ReadableStream<Uint8Array> } {
    const digest = digestOf(token);
    const offer = this.#offers.get(digest);
    this.#offers.delete(digest);
    const path = offer === undefined ? undefined : join(this.#directory, offer.file);
    if (
      offer === undefined ||
      path === undefined ||
      offer.untilMs < this.#clock.bootMs() ||
      !existsSync(path)
    ) {
      throw new KeelsonError("NOT_FOUND", "This address is used up, too old, or mistyped.", {
        remedy: "Make a new support bundle at the node's own screen.",
      });
    }
    const stream = createReadStream(path);
    stream.once("close", () => rmSync(path, { force: true }));
    return {
      file: offer.file,
      sizeBytes: statSync(path).size,
      body: Readable.toWeb(stream) as ReadableStream<Uint8Array>,
    };
  }
}

function digestOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}
