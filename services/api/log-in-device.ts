/**
 * The device cookie: who has logged in before from a browser is told from a stranger who guesses,
 * so that slowing strangers down doesn't slow the owner (OWASP, "Slow Down Online Guessing Attacks
 * with Device Cookies"). It opens nothing: without the password it is worth five guesses.
 *
 *   base64url(user) . nonce . issued, seconds . HMAC-SHA-256 of what stands before it
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { writeStateFile } from "#lib/service/state-file.ts";

export const deviceLifetimeSeconds = 180 * 86_400;

export class LogInDevices {
  readonly #key: Uint8Array;

  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** The key stands in a file of its own: another key only makes known browsers strangers again. */
  static open(path: string): LogInDevices {
    if (existsSync(path)) {
      const key = Buffer.from(readFileSync(path, "utf8").trim(), "base64url");
      if (key.length === 32) return new LogInDevices(key);
    }
    const key = randomBytes(32);
    writeStateFile(path, `${key.toString("base64url")}\n`);
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
