/**
 * Where a service's key comes from. On the appliance systemd hands it over (LoadCredentialEncrypted=),
 * unsealed by the TPM or the host key; run by hand, it is a file in the state directory.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { keyBytes, SecretBox } from "./secret-box.ts";

/** What guards the key, from the strongest. */
export type SealedBy = "tpm2" | "host" | "file";

export interface SecretKey {
  readonly box: SecretBox;
  readonly sealedBy: SealedBy;
}

/**
 * `file`: 32 bytes that must be there, with `<file>.seal` beside it saying `tpm2` or `host`.
 * Without one, `STATE/secret.key` is read, or made at the first start with mode 0600.
 */
export function loadSecretKey(file: string | undefined, state: string): SecretKey {
  if (file !== undefined) return { box: boxOf(file), sealedBy: readSeal(`${file}.seal`) };
  const own = join(state, "secret.key");
  makeKeyFile(own);
  return { box: boxOf(own), sealedBy: "file" };
}

function boxOf(path: string): SecretBox {
  let key: Uint8Array;
  try {
    key = readFileSync(path);
  } catch (cause) {
    throw new KeelsonError("UNAVAILABLE", `The secret key ${path} can't be read.`, {
      operation: "read secret key",
      object: path,
      remedy: "On a node: systemctl restart keelson-secret-key, and see its log.",
      cause,
    });
  }
  if (key.length === keyBytes) return new SecretBox(key);
  throw new KeelsonError(
    "FORMAT_CORRUPT",
    `The secret key ${path} has ${key.length} bytes, not ${keyBytes}.`,
    {
      operation: "read secret key",
      object: path,
      remedy: "Bring back the right file; what was sealed with another key can't be opened.",
    },
  );
}

function readSeal(path: string): SealedBy {
  try {
    return readFileSync(path, "utf8").trim() === "tpm2" ? "tpm2" : "host";
  } catch {
    // Unsaid: the weaker one is told.
    return "host";
  }
}

/** Whole or not at all, and never over one that is there: what it sealed would be lost. */
function makeKeyFile(path: string): void {
  if (existsSync(path)) return;
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const next = `${path}.${process.pid}.new`;
  const file = openSync(next, "wx", 0o600);
  try {
    writeSync(file, randomBytes(keyBytes));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  try {
    linkSync(next, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    rmSync(next, { force: true });
  }
}
