/**
 * Secrets at rest: sealed with one key of this node and service, so that a disk, a backup or a copy
 * of the cluster store gives nothing away.
 *
 *   sealed:1:<key id>:<base64url of nonce (12), ciphertext, tag (16)>      AES-256-GCM
 *
 * The additional data is where the secret stands (`policy/record/export/ID#chapSecret`): a sealed
 * text that was moved to another record doesn't open. The key id is a digest of the key, so that a
 * wrong key is told from damage. Nonces are random: 2^32 seals by one key stay within NIST SP
 * 800-38D section 8.3.
 */
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from "node:crypto";
import { KeelsonError } from "#lib/model/errors.ts";

export const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const prefix = "sealed:1:";
const anyVersion = /^sealed:(\d+):/;

export class SecretBox {
  readonly #key: Uint8Array;
  /** 16 hex digits; says nothing of the key. */
  readonly keyId: string;

  /** INVALID_ARGUMENT unless `key` has 32 bytes. */
  constructor(key: Uint8Array) {
    if (key.length !== keyBytes) {
      throw new KeelsonError("INVALID_ARGUMENT", `A secret key has ${keyBytes} bytes.`);
    }
    this.#key = key;
    this.keyId = createHmac("sha256", key).update("keelson key id").digest("hex").slice(0, 16);
  }

  seal(plain: string, place: string): string {
    const nonce = randomBytes(nonceBytes);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce);
    cipher.setAAD(Buffer.from(place));
    const sealed = Buffer.concat([nonce, cipher.update(plain, "utf8"), cipher.final()]);
    const whole = Buffer.concat([sealed, cipher.getAuthTag()]);
    return `${prefix}${this.keyId}:${whole.toString("base64url")}`;
  }

  /** 64 hex digits, alike for the same parts: unlike a hash, nobody without the key can guess at them. */
  fingerprint(...parts: readonly (string | Uint8Array)[]): string {
    const own = createHmac("sha256", this.#key).update("keelson fingerprint").digest();
    const mac = createHmac("sha256", own);
    for (const part of parts) mac.update(`${Buffer.byteLength(part)}:`).update(part);
    return mac.digest("hex");
  }

  /**
   * Only what was sealed with this key for this place: UNSUPPORTED for a newer envelope,
   * PERMISSION_DENIED for another key's, FORMAT_CORRUPT for anything else.
   */
  open(sealed: string, place: string): string {
    const version = anyVersion.exec(sealed)?.[1];
    if (version !== undefined && version !== "1") {
      throw new KeelsonError("UNSUPPORTED", `A secret is sealed in form ${version}.`, {
        operation: "open secret",
        object: place,
        remedy: "A newer release wrote it: start that one.",
      });
    }
    const [keyId, text, ...rest] = sealed.slice(prefix.length).split(":");
    if (version === undefined || text === undefined || rest.length > 0) throw damaged(place);
    if (keyId !== this.keyId) {
      throw new KeelsonError("PERMISSION_DENIED", "A secret is sealed with another key.", {
        operation: "open secret",
        object: place,
        remedy: `It needs the key ${keyId}; this node has ${this.keyId}.`,
      });
    }
    const whole = Buffer.from(text, "base64url");
    if (whole.length < nonceBytes + tagBytes || whole.toString("base64url") !== text) {
      throw damaged(place);
    }
    const end = whole.length - tagBytes;
    const decipher = createDecipheriv("aes-256-gcm", this.#key, whole.subarray(0, nonceBytes), {
      authTagLength: tagBytes,
    });
    decipher.setAAD(Buffer.from(place));
    decipher.setAuthTag(whole.subarray(end));
    try {
      const plain = decipher.update(whole.subarray(nonceBytes, end));
      return Buffer.concat([plain, decipher.final()]).toString("utf8");
    } catch (cause) {
      throw damaged(place, cause);
    }
  }
}

/** True for a text of any envelope, also of a newer one. */
export function isSealed(text: string): boolean {
  return anyVersion.test(text);
}

function damaged(place: string, cause?: unknown): KeelsonError {
  return new KeelsonError("FORMAT_CORRUPT", "A sealed secret was changed or stands elsewhere.", {
    operation: "open secret",
    object: place,
    remedy: "Set the secret anew.",
    ...(cause === undefined ? {} : { cause }),
  });
}
