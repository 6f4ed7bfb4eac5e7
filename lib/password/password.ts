/**
 * Password hashes. New ones are argon2id (RFC 9106) in the PHC string form, with their parameters;
 * `$6$` (SHA-512 crypt) from an answer file is verified too, and replaced at the first good log-in.
 */
// By namespace: a runtime without argon2 (Deno) still starts, and works with `$6$`.
import * as nodeCrypto from "node:crypto";
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { KeelsonError } from "#lib/model/errors.ts";

interface Argon2Cost {
  readonly memoryKib: number;
  readonly passes: number;
  readonly lanes: number;
}

/** About 150 ms on one core of a small server. */
const cost: Argon2Cost = { memoryKib: 32 * 1024, passes: 3, lanes: 1 };
const saltBytes = 16;
const tagBytes = 32;
/** A hash file can't make a log-in take more than this. */
const most: Argon2Cost = { memoryKib: 1024 * 1024, passes: 16, lanes: 16 };

const hasArgon2 = typeof nodeCrypto.argon2 === "function";

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

/** Synchronous: for commands and set-up, not for a server's requests. */
export function hashPassword(password: string): string {
  if (!hasArgon2) return hashBySha512Crypt(password);
  const salt = randomBytes(saltBytes);
  const tag = nodeCrypto.argon2Sync("argon2id", parameters(password, salt, cost, tagBytes));
  return phc(salt, tag);
}

export async function hashPasswordAsync(password: string): Promise<string> {
  if (!hasArgon2) return hashBySha512Crypt(password);
  const salt = randomBytes(saltBytes);
  return phc(salt, await deriveTag(password, salt, cost, tagBytes));
}

/**
 * A hash that no password has, in no time: a log-in by an unknown name is checked against it, and
 * takes as long as one by a known name.
 */
export function hashOfNothing(): string {
  const tag = randomBytes(tagBytes);
  if (hasArgon2) return phc(randomBytes(saltBytes), tag);
  return hashBySha512Crypt(tag.toString("base64url"));
}

/** Where there is no argon2; replaced at the first good log-in where there is. */
function hashBySha512Crypt(password: string): string {
  const salt = randomBytes(12).toString("base64").replaceAll("+", ".");
  return sha512Crypt(password, salt, 50_000);
}

function phc(salt: Uint8Array, tag: Uint8Array): string {
  const { memoryKib, passes, lanes } = cost;
  return `$argon2id$v=19$m=${memoryKib},t=${passes},p=${lanes}$${base64(salt)}$${base64(tag)}`;
}

function parameters(
  password: string,
  salt: Uint8Array,
  { memoryKib, passes, lanes }: Argon2Cost,
  tagLength: number,
) {
  return {
    message: password.normalize("NFC"),
    nonce: salt,
    memory: memoryKib,
    passes,
    parallelism: lanes,
    tagLength,
  };
}

function deriveTag(
  password: string,
  salt: Uint8Array,
  given: Argon2Cost,
  tagLength: number,
): Promise<Buffer> {
  requireArgon2();
  return new Promise((resolve, reject) =>
    nodeCrypto.argon2("argon2id", parameters(password, salt, given, tagLength), (error, tag) =>
      error === null ? resolve(tag as Buffer) : reject(error),
    ),
  );
}

function requireArgon2(): void {
  if (hasArgon2) return;
  throw new KeelsonError("UNSUPPORTED", "This runtime has no argon2.", {
    operation: "verify password",
    remedy: "Run under Node 24.7 or later.",
  });
}

type ParsedHash =
  | { kind: "argon2id"; salt: Buffer; tag: Buffer; cost: Argon2Cost }
  | { kind: "sha512crypt"; salt: string; rounds: number | null; text: string };

/** INVALID_ARGUMENT for a hash that this can't verify: better at start than at each log-in. */
export function parsePasswordHash(hash: string): ParsedHash {
  const argon = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([\w+/]+)\$([\w+/]+)$/.exec(hash);
  if (argon !== null) {
    const given = {
      memoryKib: Number(argon[1]),
      passes: Number(argon[2]),
      lanes: Number(argon[3]),
    };
    const salt = Buffer.from(argon[4], "base64");
    const tag = Buffer.from(argon[5], "base64");
    const fits =
      given.lanes >= 1 &&
      given.lanes <= most.lanes &&
      given.passes >= 1 &&
      given.passes <= most.passes &&
      given.memoryKib >= 8 * given.lanes &&
      given.memoryKib <= most.memoryKib &&
      salt.length >= 8 &&
      tag.length >= 16;
    if (fits) return { kind: "argon2id", salt, tag, cost: given };
  }
  const crypt = /^\$6\$(?:rounds=(\d{1,7})\$)?([./0-9A-Za-z]{0,16})\$[./0-9A-Za-z]{86}$/.exec(hash);
  if (crypt !== null) {
    const rounds = crypt[1] === undefined ? null : Number(crypt[1]);
    return { kind: "sha512crypt", salt: crypt[2], rounds, text: hash };
  }
  throw new KeelsonError("INVALID_ARGUMENT", "The admin's password hash can't be used.", {
    operation: "read password hash",
    remedy: "Give one line of $argon2id$v=19$... or $6$..., as `mkpasswd -m sha-512` makes it.",
  });
}

/** Takes the same time for any wrong password. Throws for a hash of another kind. */
export async function verifyPassword(password: string, hash: string): Promise<boolean> {
  const parsed = parsePasswordHash(hash);
  if (parsed.kind === "argon2id") {
    const tag = await deriveTag(password, parsed.salt, parsed.cost, parsed.tag.length);
    return timingSafeEqual(tag, parsed.tag);
  }
  const made = Buffer.from(sha512Crypt(password, parsed.salt, parsed.rounds));
  const wanted = Buffer.from(parsed.text);
  return made.length === wanted.length && timingSafeEqual(made, wanted);
}

export function isOutdated(hash: string): boolean {
  return (
    hasArgon2 &&
    !hash.startsWith(`$argon2id$v=19$m=${cost.memoryKib},t=${cost.passes},p=${cost.lanes}$`)
  );
}

const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** U. Drepper, "Unix crypt using SHA-256 and SHA-512" (2008). `rounds` null: the default, unsaid. */
export function sha512Crypt(password: string, salt: string, rounds: number | null): string {
  const key = Buffer.from(password);
  const saltText = Buffer.from(salt);
  const count = Math.min(Math.max(rounds ?? 5000, 1000), 999_999_999);
  const digest = (...parts: Uint8Array[]) => {
    const hash = createHash("sha512");
    for (const part of parts) hash.update(part);
    return hash.digest();
  };
  const b = digest(key, saltText, key);
  const parts: Uint8Array[] = [key, saltText, stretched(b, key.length)];
  for (let bits = key.length; bits > 0; bits >>= 1) parts.push((bits & 1) === 1 ? b : key);
  let a = digest(...parts);
  const p = stretched(digest(...new Array<Buffer>(key.length).fill(key)), key.length);
  const s = stretched(digest(...new Array<Buffer>(16 + a[0]).fill(saltText)), saltText.length);
  for (let round = 0; round < count; round++) {
    const odd = (round & 1) === 1;
    const middle = [...(round % 3 !== 0 ? [s] : []), ...(round % 7 !== 0 ? [p] : [])];
    a = digest(odd ? p : a, ...middle, odd ? a : p);
  }
  const said = rounds === null ? "" : `rounds=${count}$`;
  return `$6$${said}${salt}$${cryptBase64(a)}`;
}

function stretched(bytes: Uint8Array, length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, index) => bytes[index % bytes.length]));
}

/** Byte order of the 64-byte digest: triples (0, 21, 42), then each index moves on by 22 mod 63. */
function cryptBase64(digest: Uint8Array): string {
  let text = "";
  const emit = (value: number, characters: number) => {
    for (let i = 0, rest = value; i < characters; i++, rest >>= 6) text += cryptAlphabet[rest & 63];
  };
  let [x, y, z] = [0, 21, 42];
  for (let i = 0; i < 21; i++) {
    emit((digest[x] << 16) | (digest[y] << 8) | digest[z], 4);
    [x, y, z] = [y + 1, z + 1, x + 1];
  }
  emit(digest[63], 2);
  return text;
}
