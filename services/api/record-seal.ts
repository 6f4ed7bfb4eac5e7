/**
 * Policy's records with their secret fields sealed: what stands in the cluster store, and in every
 * copy of it. Plain values of older releases are read as they are, and sealed at api's next start.
 *
 * A field that can't be opened (another key, damage) makes its record no less readable. In its place
 * stands a text that nobody can know, so that it opens nothing; written back, it is the sealed text
 * again. `why` is then a condition.
 */
import { createHmac, randomBytes } from "node:crypto";
import { explainError } from "#lib/model/errors.ts";
import { isSealed, type SecretBox } from "#lib/seal/secret-box.ts";
import type { Kind } from "./policy.ts";

/** Of each kind the fields, by path. A new kind with a secret is named here; no more is needed. */
export const secretFields: { readonly [K in Kind]?: readonly string[] } = {
  boot: ["chapSecret"],
  export: ["chapSecret"],
  user: ["totp.secret"],
  "identity-provider": ["clientSecret"],
  "audit-target": ["token"],
};

export interface OpenedRecord {
  readonly value: unknown;
  /** Why a field could not be opened; undefined: all were. */
  readonly why: string | undefined;
  /** A secret stands there in plain text. */
  readonly plain: boolean;
}

export class RecordSeal {
  readonly #box: SecretBox;
  readonly #standIns = new Map<string, string>();
  readonly #standInKey = randomBytes(32);

  constructor(box: SecretBox) {
    this.#box = box;
  }

  /** `key` is the record's in the cluster store. */
  seal(key: string, kind: Kind, record: unknown): unknown {
    return this.#each(kind, record, (text, path) => {
      const kept = this.#standIns.get(text);
      return kept ?? this.#box.seal(text, `${key}#${path}`);
    });
  }

  open(key: string, kind: Kind, record: unknown): OpenedRecord {
    let why: string | undefined;
    let plain = false;
    const value = this.#each(kind, record, (text, path) => {
      if (!isSealed(text)) {
        plain = true;
        return text;
      }
      try {
        return this.#box.open(text, `${key}#${path}`);
      } catch (error) {
        why = explainError(error);
        return this.#standIn(text);
      }
    });
    return { value, why, plain };
  }

  #standIn(sealed: string): string {
    const text = createHmac("sha256", this.#standInKey).update(sealed).digest("base64url");
    this.#standIns.set(text, sealed);
    return text;
  }

  #each(kind: Kind, record: unknown, turn: (text: string, path: string) => string): unknown {
    const paths = secretFields[kind];
    if (paths === undefined) return record;
    const copy = structuredClone(record);
    for (const path of paths) {
      const names = path.split(".");
      const last = names.pop()!;
      let place = copy as Record<string, unknown> | null | undefined;
      for (const name of names) place = place?.[name] as typeof place;
      const value = place?.[last];
      if (typeof value === "string") place![last] = turn(value, path);
    }
    return copy;
  }
}
