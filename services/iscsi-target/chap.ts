/**
 * CHAP as iSCSI uses it (RFC 7143 section 12.1.3, RFC 1994):
 *
 *   initiator                       target
 *   CHAP_A=7,5            --->
 *                         <---      CHAP_A=7 CHAP_I=… CHAP_C=…
 *   CHAP_N CHAP_R [CHAP_I CHAP_C] ->
 *                         <---      [CHAP_N CHAP_R]          mutual
 *
 * A response is H(identifier, secret, challenge).
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { formatBinary, parseBinary, parseNumber } from "#lib/wire/iscsi/text.ts";
import type { Chap } from "./schema.ts";

/** IANA "PPP Authentication Algorithms"; SHA-1 (6) is left out, being neither needed nor good. */
const algorithms: ReadonlyMap<string, { readonly hash: string; readonly challengeBytes: number }> =
  new Map([
    ["5", { hash: "md5", challengeBytes: 16 }],
    ["7", { hash: "sha256", challengeBytes: 32 }],
    ["8", { hash: "sha3-256", challengeBytes: 32 }],
  ]);

const maxChallengeBytes = 1024;

export type ChapResult =
  | { readonly ok: true; readonly pairs: readonly (readonly [string, string])[]; mutual: boolean }
  | { readonly ok: false; readonly why: string };

function response(hash: string, identifier: number, secret: string, challenge: Uint8Array) {
  return createHash(hash)
    .update(Uint8Array.of(identifier))
    .update(Buffer.from(secret, "utf8"))
    .update(challenge)
    .digest();
}

export class ChapExchange {
  private readonly find: (user: string) => Chap | undefined;
  private readonly random: (bytes: number) => Uint8Array;
  private hash = "";
  private identifier = 0;
  private challenge: Uint8Array = new Uint8Array(0);

  /** `find`: the credentials that a user name stands for here. */
  constructor(
    find: (user: string) => Chap | undefined,
    random: (bytes: number) => Uint8Array = randomBytes,
  ) {
    this.find = find;
    this.random = random;
  }

  get challenged(): boolean {
    return this.challenge.length > 0;
  }

  /** Answers CHAP_A: the first algorithm of the initiator's list that is known here. */
  offer(list: string): ChapResult {
    const choice = list.split(",").find((name) => algorithms.has(name));
    if (choice === undefined) return { ok: false, why: `no CHAP algorithm of "${list}" is known` };
    const { hash, challengeBytes } = algorithms.get(choice)!;
    this.hash = hash;
    this.identifier = this.random(1)[0];
    this.challenge = this.random(challengeBytes);
    return {
      ok: true,
      mutual: false,
      pairs: [
        ["CHAP_A", choice],
        ["CHAP_I", String(this.identifier)],
        ["CHAP_C", formatBinary(this.challenge)],
      ],
    };
  }

  /** Checks CHAP_N and CHAP_R, and answers the initiator's own challenge if it sent one. */
  verify(pairs: ReadonlyMap<string, string>): ChapResult {
    const user = pairs.get("CHAP_N");
    const given = parseBinary(pairs.get("CHAP_R") ?? "");
    if (!this.challenged || user === undefined || given === undefined) {
      return { ok: false, why: "CHAP_N and CHAP_R are wanted after a challenge" };
    }
    const chap = this.find(user);
    // An unknown user costs the same as a wrong secret.
    const secret = chap?.secret ?? formatBinary(this.random(16));
    const wanted = response(this.hash, this.identifier, secret, this.challenge);
    const padded = new Uint8Array(wanted.length);
    padded.set(given.subarray(0, wanted.length));
    const equal = timingSafeEqual(padded, wanted) && given.length === wanted.length;
    if (chap === undefined || !equal) {
      return { ok: false, why: chap === undefined ? "unknown CHAP user" : "wrong CHAP secret" };
    }
    const identifier = pairs.get("CHAP_I");
    const challenge = pairs.get("CHAP_C");
    if (identifier === undefined && challenge === undefined) {
      return { ok: true, pairs: [], mutual: false };
    }
    return this.prove(chap, identifier ?? "", challenge ?? "");
  }

  private prove(chap: Chap, identifierText: string, challengeText: string): ChapResult {
    const identifier = parseNumber(identifierText, 0, 255);
    const challenge = parseBinary(challengeText);
    if (
      identifier === undefined ||
      challenge === undefined ||
      challenge.length > maxChallengeBytes
    ) {
      return { ok: false, why: "the initiator's CHAP_I or CHAP_C is unreadable" };
    }
    // Section 9.2.1: a challenge sent back would make us answer our own.
    if (Buffer.from(challenge).equals(this.challenge)) {
      return { ok: false, why: "the initiator sent our own challenge back" };
    }
    if (chap.mutualUser === undefined || chap.mutualSecret === undefined) {
      return {
        ok: false,
        why: "the initiator wants mutual CHAP and the export has no mutual secret",
      };
    }
    const proof = response(this.hash, identifier, chap.mutualSecret, challenge);
    return {
      ok: true,
      mutual: true,
      pairs: [
        ["CHAP_N", chap.mutualUser],
        ["CHAP_R", formatBinary(proof)],
      ],
    };
  }
}
