/**
 * Private keys in files, mode 0600. With a passphrase: PKCS#8 EncryptedPrivateKeyInfo (RFC 5958)
 * by PBES2 (RFC 8018) with scrypt (RFC 7914) and AES-256-CBC, which OpenSSL and Node read as any
 * other key. It is written here because Node's own export knows only PBKDF2 with 2048 rounds.
 */
import {
  createCipheriv,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  scryptSync,
} from "node:crypto";
import { closeSync, fsyncSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { KeelsonError } from "#lib/model/errors.ts";

/** 16 MiB and about half a second: OpenSSL reads no keys that need more than 32 MiB. */
const cost = { N: 16_384, r: 8, p: 8 };
const oid = {
  pbes2: "06092a864886f70d01050d",
  scrypt: "06092b06010401da47040b",
  aes256Cbc: "060960864801650304012a",
};

export function newKey(): KeyObject {
  return generateKeyPairSync("ed25519").privateKey;
}

/** Writes a new file; ALREADY_EXISTS rather than replace a key. */
export function writePrivateKey(path: string, key: KeyObject, passphrase?: string): void {
  const plain = key.export({ format: "der", type: "pkcs8" });
  const text =
    passphrase === undefined
      ? pem("PRIVATE KEY", plain)
      : pem("ENCRYPTED PRIVATE KEY", encrypt(plain, passphrase));
  let file: number;
  try {
    file = openSync(path, "wx", 0o600);
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === "EEXIST";
    throw new KeelsonError(
      exists ? "ALREADY_EXISTS" : "INVALID_ARGUMENT",
      exists ? `${path} holds a key already.` : `${path}: ${(cause as Error).message}.`,
      { remedy: "A key is never overwritten: name another folder.", object: path, cause },
    );
  }
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** NOT_FOUND, PERMISSION_DENIED (others may read it; the passphrase is wrong or missing). */
export function readPrivateKey(path: string, passphrase?: string): KeyObject {
  let text: string;
  try {
    const { mode } = statSync(path);
    if ((mode & 0o077) !== 0) {
      throw new KeelsonError("PERMISSION_DENIED", `${path} can be read by others.`, {
        remedy: `chmod 600 ${path}, and think about who has read it.`,
        object: path,
      });
    }
    text = readFileSync(path, "utf8");
  } catch (cause) {
    if (cause instanceof KeelsonError) throw cause;
    throw new KeelsonError("NOT_FOUND", `${path} can't be read: ${(cause as Error).message}.`, {
      object: path,
      cause,
    });
  }
  if (text.includes("ENCRYPTED") && passphrase === undefined) {
    throw new KeelsonError("PERMISSION_DENIED", `${path} needs its passphrase.`, {
      remedy: "Give --passphrase-file FILE or KEELSON_KEY_PASSPHRASE.",
      object: path,
    });
  }
  try {
    const key = createPrivateKey(passphrase === undefined ? text : { key: text, passphrase });
    if (key.asymmetricKeyType !== "ed25519") throw new Error("it is not an Ed25519 key");
    return key;
  } catch (cause) {
    const why = text.includes("ENCRYPTED") ? "the passphrase is wrong" : (cause as Error).message;
    throw new KeelsonError("PERMISSION_DENIED", `${path} can't be used: ${why}.`, {
      object: path,
      cause,
    });
  }
}

function encrypt(plain: Buffer, passphrase: string): Buffer {
  const [salt, iv] = [randomBytes(16), randomBytes(16)];
  const cipher = createCipheriv("aes-256-cbc", scryptSync(passphrase, salt, 32, cost), iv);
  const content = Buffer.concat([cipher.update(plain), cipher.final()]);
  const kdf = sequence(
    Buffer.from(oid.scrypt, "hex"),
    sequence(octets(salt), integer(cost.N), integer(cost.r), integer(cost.p)),
  );
  const scheme = sequence(Buffer.from(oid.aes256Cbc, "hex"), octets(iv));
  const algorithm = sequence(Buffer.from(oid.pbes2, "hex"), sequence(kdf, scheme));
  return sequence(algorithm, octets(content));
}

/** DER, for contents under 64 KiB. */
function tagged(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

const sequence = (...parts: Buffer[]) => tagged(0x30, Buffer.concat(parts));
const octets = (content: Buffer) => tagged(0x04, content);

/** Positive, under 2^31. */
function integer(value: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes.writeUInt32BE(value, 1);
  const first = bytes.findIndex((byte) => byte !== 0);
  return tagged(0x02, bytes.subarray(bytes[first] >= 0x80 ? first - 1 : first));
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g)!;
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
