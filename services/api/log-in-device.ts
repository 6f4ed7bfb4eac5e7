/**
 * The device cookie: who has logged in before from a browser is told from a stranger who guesses,
 * so that slowing strangers down doesn't slow the owner (OWASP, "Slow Down Online Guessing Attacks
 * with Device Cookies"). It opens nothing: without the password it is worth five guesses.
 *
 *   base64url(user) . nonce . issued, seconds . HMAC-SHA-256 of what stands before it
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { isSealed, type SecretBox } from "#lib/seal/secret-box.ts";
import { writeStateFile } from "#lib/service/state-file.ts";

const place = "device.key";

export const deviceLifetimeSeconds = 180 * 86_400;

export class LogInDevices {
  readonly #key: Uint8Array;

  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /**
   * The key stands, sealed, in a file of its own: another key only makes known browsers strangers
   * again. One that an older release left in plain text is sealed; one that can't be opened stays.
   */
  static open(path: string, box: SecretBox): LogInDevices {
    const kept = existsSync(path) ? readFileSync(path, "utf8").trim() : "";
    if (isSealed(kept)) {
      try {
        return new LogInDevices(keyOf(box.open(kept, place)) ?? randomBytes(32));
      } catch {
        return new LogInDevices(randomBytes(32));
      }
    }
    const key = keyOf(kept) ?? randomBytes(32);
    writeStateFile(path, `${box.seal(key.toString("base64url"), place)}\n`);
    return new LogInDevices(key);
  }

  issue(user: string, nowMs: number): string {
    const nonce = randomBytes(12).toString("base64url");
    const issued = Math.floor(nowMs / 1000);
    const body = `${Buffer.from(user).toString("base64url")}.${nonce}.${issued}`;
    return `${body}.${this.#mac(body).toString("base64url")}`;
  }

  /** The device's nonce if the cookie is ours and of this user; undefined otherwise. */
  verify(user: string, cookie: string | undefined, nowMs: number): string | undefined {
    const match = /^([\w-]{1,100})\.([\w-]{16})\.(\d{1,12})\.([\w-]{43})$/.exec(cookie ?? "");
    if (match === null) return undefined;
    const [, encoded, nonce, issued, mac] = match;
    const given = Buffer.from(mac, "base64url");
    const right = this.#mac(`${encoded}.${nonce}.${issued}`);
    if (given.length !== right.length || !timingSafeEqual(given, right)) return undefined;
    if (Buffer.from(encoded, "base64url").toString() !== user) return undefined;
    return Number(issued) + deviceLifetimeSeconds > nowMs / 1000 ? nonce : undefined;
  }

  #mac(body: string): Buffer {
    return createHmac("sha256", this.#key).update(body).digest();
  }
}

function keyOf(text: string): Buffer | undefined {
  const key = Buffer.from(text, "base64url");
  return key.length === 32 ? key : undefined;
}
