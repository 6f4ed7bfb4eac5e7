/**
 * One-time codes of an authenticator (RFC 6238: SHA-1, 30 s, six digits, as every authenticator
 * knows it), and recovery codes for the day it is lost. A code is good once: the step it was of is
 * remembered, and that step and all before it are refused (section 5.2).
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { Secret, TOTP } from "otpauth";
import { KeelsonError } from "#lib/model/errors.ts";
import type { TotpRecord, UserRecord } from "./account-records.ts";
import type { RecoveryCodes, Totp, TotpEnrolment } from "./accounts-schema.ts";
import type { Clock } from "./clock.ts";
import { type Draft, notFound, type Policy } from "./policy.ts";

const periodSeconds = 30;
/** Steps before and after now that are taken: clocks differ. */
const window = 1;
const secretBytes = 20;
const recoveryCount = 10;
/** Without what looks alike; 17 characters of 31 are 84 bits, so that guessing is hopeless. */
const recoveryLength = 17;
const recoveryAlphabet = "abcdefghjkmnpqrstuvwxyz23456789";

export class TotpFactors {
  readonly #policy: Policy;
  readonly #clock: Clock;
  readonly #issuer: string;

  /** `issuer` is what the authenticator shows beside the user: the node's name. */
  constructor(policy: Policy, clock: Clock, issuer: string) {
    this.#policy = policy;
    this.#clock = clock;
    this.#issuer = issuer;
  }

  state(user: string): Totp {
    const totp = this.#policy.get("user", user).totp;
    if (totp === null) return { state: "off", recoveryCodesLeft: 0 };
    return {
      state: totp.confirmedAt === null ? "pending" : "on",
      recoveryCodesLeft: totp.recoveryDigests.length,
    };
  }

  /** A new secret, that asks for nothing until confirmed. ALREADY_EXISTS where one is in use. */
  async enrol(user: string): Promise<TotpEnrolment> {
    const secret = new Secret({ size: secretBytes });
    await this.#policy.change((draft) => {
      const record = this.#user(draft, user);
      if (record.totp !== null && record.totp.confirmedAt !== null) {
        throw new KeelsonError("ALREADY_EXISTS", "An authenticator is in use already.", {
          object: user,
          remedy: "Disable it first.",
        });
      }
      const totp = { secret: secret.base32, confirmedAt: null, lastStep: 0, recoveryDigests: [] };
      draft.put("user", { ...record, totp });
    });
    return { url: this.#totp(user, secret.base32).toString(), secret: secret.base32 };
  }

  /** From now on log-in asks for a code. INVALID_ARGUMENT for a wrong one, or without enrolment. */
  async confirm(user: string, code: string): Promise<RecoveryCodes> {
    const codes = newRecoveryCodes();
    const recoveryDigests = codes.map(recoveryDigest);
    await this.#policy.change((draft) => {
      const record = this.#user(draft, user);
      const totp = record.totp;
      if (totp === null || totp.confirmedAt !== null) {
        throw new KeelsonError("INVALID_ARGUMENT", "There is no enrolment to confirm.", {
          remedy: "Begin one with POST /session/totp.",
        });
      }
      const lastStep = this.#stepOf(user, totp, code);
      if (lastStep === undefined) {
        throw new KeelsonError("INVALID_ARGUMENT", "The code is wrong.", {
          operation: "confirm the authenticator",
          remedy: "Are the authenticator's clock and the node's right? Take the next code.",
        });
      }
      const confirmedAt = this.#clock.now();
      draft.put("user", { ...record, totp: { ...totp, confirmedAt, lastStep, recoveryDigests } });
    });
    return { codes };
  }

  /** Takes a code, or a recovery code, away. What it was, or undefined if it isn't good. */
  async take(user: string, code: string): Promise<"totp" | "recovery-code" | undefined> {
    return await this.#policy.change((draft) => {
      const record = draft.get("user", user);
      const totp = record?.totp ?? null;
      if (record === undefined || totp === null || totp.confirmedAt === null) return undefined;
      if (/^\d{6}$/.test(code)) {
        const lastStep = this.#stepOf(user, totp, code);
        if (lastStep === undefined) return undefined;
        draft.put("user", { ...record, totp: { ...totp, lastStep } });
        return "totp";
      }
      const digest = Buffer.from(recoveryDigest(code), "hex");
      const left = totp.recoveryDigests.filter(
        (each) => !timingSafeEqual(Buffer.from(each, "hex"), digest),
      );
      if (left.length === totp.recoveryDigests.length) return undefined;
      draft.put("user", { ...record, totp: { ...totp, recoveryDigests: left } });
      return "recovery-code";
    });
  }

  async renewRecoveryCodes(user: string): Promise<RecoveryCodes> {
    const codes = newRecoveryCodes();
    const recoveryDigests = codes.map(recoveryDigest);
    await this.#policy.change((draft) => {
      const record = this.#user(draft, user);
      if (record.totp === null || record.totp.confirmedAt === null) {
        throw new KeelsonError("INVALID_ARGUMENT", "No authenticator is in use.", {
          remedy: "Enrol one first: recovery codes stand in for it.",
        });
      }
      draft.put("user", { ...record, totp: { ...record.totp, recoveryDigests } });
    });
    return { codes };
  }

  async disable(user: string): Promise<void> {
    await this.#policy.change((draft) => {
      draft.put("user", { ...this.#user(draft, user), totp: null });
    });
  }

  /** The step that a code is of, if it is right and later than the last one taken. */
  #stepOf(user: string, totp: TotpRecord, code: string): number | undefined {
    const nowMs = Date.parse(this.#clock.now());
    // What stands in for a secret that can't be unsealed is no base32: no code fits it.
    if (!/^[A-Z2-7]+$/.test(totp.secret)) return undefined;
    const delta = this.#totp(user, totp.secret).validate({ token: code, timestamp: nowMs, window });
    if (delta === null) return undefined;
    const step = Math.floor(nowMs / 1000 / periodSeconds) + delta;
    return step > totp.lastStep ? step : undefined;
  }

  #totp(user: string, secret: string): TOTP {
    return new TOTP({
      issuer: this.#issuer,
      label: user,
      secret: Secret.fromBase32(secret),
      algorithm: "SHA1",
      digits: 6,
      period: periodSeconds,
    });
  }

  #user(draft: Draft, user: string): UserRecord {
    const record = draft.get("user", user);
    if (record === undefined) throw notFound("user", user);
    return record;
  }
}

function newRecoveryCodes(): string[] {
  return Array.from({ length: recoveryCount }, () => {
    const fair = 256 - (256 % recoveryAlphabet.length);
    const letters: string[] = [];
    while (letters.length < recoveryLength) {
      const [byte] = randomBytes(1);
      if (byte < fair) letters.push(recoveryAlphabet[byte % recoveryAlphabet.length]);
    }
    return letters.join("").replaceAll(/(.{6})(?=.)/g, "$1-");
  });
}

/** Typed as people do: in capitals, with spaces, without the dashes. */
function recoveryDigest(code: string): string {
  const plain = code.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  return createHash("sha256").update(plain).digest("hex");
}
