/**
 * The log-in phase (RFC 7143 section 6), as one exchange a connection. It executes nothing: text in,
 * an outcome out.
 *
 *          T, NSG=1                    T, NSG=3
 *   security ------> operational ---------------> full feature
 *      |                                               ^
 *      +-----------------------------------------------+
 *   first PDU may begin at either; a target that wants CHAP ends one that skips security
 */
import { type Iqn, parseIqn } from "#lib/model/ids.ts";
import {
  defaultParameters,
  maxReceiveDataSegmentBytes,
  negotiate,
  type SessionParameters,
} from "#lib/wire/iscsi/negotiation.ts";
import { LoginFlag, LoginStage, LoginStatus, type loginLayout } from "#lib/wire/iscsi/pdu.ts";
import { maxTextBytes, parseText } from "#lib/wire/iscsi/text.ts";
import { ChapExchange } from "./chap.ts";
import type { LogicalUnit } from "./logical-unit.ts";
import type { Chap } from "./schema.ts";

export type LoginPdu = NonNullable<ReturnType<typeof loginLayout.decode>>;

export type FailureReason = "authentication" | "notFound" | "rateLimited" | "protocol";

export type LoginOutcome =
  /** Answer and go on. `transit`: the stage ends as asked. */
  | {
      readonly kind: "answer";
      readonly pairs: readonly (readonly [string, string])[];
      readonly transit: boolean;
    }
  /** Answer, with transit to full feature. */
  | { readonly kind: "complete"; readonly pairs: readonly (readonly [string, string])[] }
  | {
      readonly kind: "fail";
      readonly status: number;
      readonly reason: FailureReason;
      readonly why: string;
    };

/** What a log-in may ask about its surroundings. */
export interface LoginSurroundings {
  findTarget(iqn: Iqn): LogicalUnit | undefined;
  /** CHAP credentials of all exports that name the initiator: for a discovery session. */
  credentials(initiator: Iqn): readonly Chap[];
  /** True while this host failed too often. */
  limited(): boolean;
  readonly fromLoopback: boolean;
}

type Pairs = [string, string][];

const chapKeys = new Set(["CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"]);
/** Round trips that a log-in may take: nothing real needs more than six. */
const maxRounds = 32;

export class LoginExchange {
  initiator: Iqn | undefined;
  kind: "normal" | "discovery" = "normal";
  unit: LogicalUnit | undefined;
  authenticated: "none" | "chap" | "mutualChap" = "none";
  readonly parameters: SessionParameters = defaultParameters();
  private readonly around: LoginSurroundings;
  private text: Uint8Array[] = [];
  private textBytes = 0;
  private rounds = 0;
  private stage: number = -1;
  private isid = "";
  private named = false;
  private declared = false;
  private chapWanted = false;
  private proven = false;
  private chap: ChapExchange | undefined;

  constructor(around: LoginSurroundings) {
    this.around = around;
  }

  receive(pdu: LoginPdu, text: Uint8Array): LoginOutcome {
    const current = (pdu.flags & LoginFlag.currentStage) >> 2;
    const next = pdu.flags & LoginFlag.nextStage;
    const transit = (pdu.flags & LoginFlag.transit) !== 0;
    const more = (pdu.flags & LoginFlag.continue) !== 0;
    if (++this.rounds > maxRounds) return protocol("too many log-in requests");
    if (this.stage < 0) {
      if (pdu.versionMin > 0) {
        return fail(LoginStatus.unsupportedVersion, "protocol", "only version 0 is spoken");
      }
      this.stage = current;
      this.isid = Buffer.from(pdu.isid).toString("hex");
    }
    if (Buffer.from(pdu.isid).toString("hex") !== this.isid) return protocol("the ISID changed");
    if (current !== this.stage || current > LoginStage.operational) {
      return protocol(`stage ${current} came in stage ${this.stage}`);
    }
    if (transit && (more || next <= current || next === 2)) {
      return protocol(
        `no transit from stage ${current} to ${next}${more ? " with more text" : ""}`,
      );
    }
    this.textBytes += text.length;
    if (this.textBytes > maxTextBytes) return protocol("the text is too long");
    this.text.push(text.slice());
    if (more) return { kind: "answer", pairs: [], transit: false };
    const parsed = parseText(Buffer.concat(this.text));
    this.text = [];
    this.textBytes = 0;
    if (!parsed.ok) return protocol(`the text is malformed: ${parsed.fault}`);

    const answer: Pairs = [];
    const failure =
      (this.named ? undefined : this.introduce(parsed.pairs, answer)) ??
      (current === LoginStage.security
        ? this.secure(parsed.pairs, answer)
        : this.operate(parsed.pairs, answer));
    if (failure !== undefined) return failure;
    if (!transit) return { kind: "answer", pairs: answer, transit: false };
    if (current === LoginStage.security && this.chapWanted && !this.proven) {
      // The initiator wants on before it has proven itself: answered, not yet moved on.
      if (this.chap !== undefined) {
        return { kind: "answer", pairs: answer, transit: false };
      }
      return fail(LoginStatus.authenticationFailure, "authentication", "CHAP is required");
    }
    this.stage = next;
    if (next === LoginStage.fullFeature) return { kind: "complete", pairs: answer };
    return { kind: "answer", pairs: answer, transit: true };
  }

  /** The leading text: who, to whom, for what. */
  private introduce(pairs: ReadonlyMap<string, string>, answer: Pairs): LoginOutcome | undefined {
    this.named = true;
    const name = pairs.get("InitiatorName");
    if (name === undefined) {
      return fail(LoginStatus.missingParameter, "protocol", "InitiatorName is missing");
    }
    this.initiator = parseIqn(name);
    if (this.initiator === undefined) return protocol("InitiatorName is not an iqn. name");
    const type = pairs.get("SessionType") ?? "Normal";
    if (type === "Discovery") {
      this.kind = "discovery";
      return undefined;
    }
    if (type !== "Normal") {
      return fail(LoginStatus.sessionTypeNotSupported, "protocol", `no session type "${type}"`);
    }
    const target = pairs.get("TargetName");
    if (target === undefined) {
      return fail(LoginStatus.missingParameter, "protocol", "TargetName is missing");
    }
    const iqn = parseIqn(target);
    const unit = iqn === undefined ? undefined : this.around.findTarget(iqn);
    if (unit === undefined) {
      return fail(LoginStatus.notFound, "notFound", "there is no such target");
    }
    if (!unit.mayUse(this.initiator, this.around.fromLoopback)) {
      const why = "the target's list does not name this initiator";
      return fail(LoginStatus.authorizationFailure, "notFound", why);
    }
    this.unit = unit;
    this.chapWanted = unit.entry.chap !== undefined;
    answer.push(["TargetPortalGroupTag", "1"]);
    return undefined;
  }

  private secure(pairs: ReadonlyMap<string, string>, answer: Pairs): LoginOutcome | undefined {
    const methods = pairs.get("AuthMethod")?.split(",");
    if (methods !== undefined) {
      const chapOnly = !methods.includes("None") && this.kind === "discovery";
      if (methods.includes("CHAP") && (this.chapWanted || chapOnly)) {
        if (this.around.limited()) {
          const why = "too many failed log-ins from this address; wait a minute";
          return fail(LoginStatus.authenticationFailure, "rateLimited", why);
        }
        answer.push(["AuthMethod", "CHAP"]);
        this.chapWanted = true;
        this.chap = new ChapExchange((user) => this.findCredentials(user));
      } else if (this.chapWanted || !methods.includes("None")) {
        const why = this.chapWanted
          ? "the target wants CHAP and the initiator does not offer it"
          : "the target has no CHAP credentials and the initiator insists on an authentication";
        return fail(LoginStatus.authenticationFailure, "authentication", why);
      } else answer.push(["AuthMethod", "None"]);
    }
    const list = pairs.get("CHAP_A");
    if (list !== undefined || pairs.has("CHAP_N") || pairs.has("CHAP_R")) {
      if (this.chap === undefined || this.proven) {
        return protocol("CHAP keys came without AuthMethod=CHAP");
      }
      if (list !== undefined && this.chap.challenged) {
        return protocol("CHAP_A came twice");
      }
      const result = list !== undefined ? this.chap.offer(list) : this.chap.verify(pairs);
      if (!result.ok) {
        return fail(LoginStatus.authenticationFailure, "authentication", result.why);
      }
      answer.push(...result.pairs.map(([key, value]): [string, string] => [key, value]));
      if (list === undefined) {
        this.proven = true;
        this.authenticated = result.mutual ? "mutualChap" : "chap";
      }
    }
    this.answerOperational(pairs, answer);
    return undefined;
  }

  private findCredentials(user: string): Chap | undefined {
    if (this.unit !== undefined) {
      const chap = this.unit.entry.chap;
      return chap?.user === user ? chap : undefined;
    }
    return this.around.credentials(this.initiator!).find((chap) => chap.user === user);
  }

  private operate(pairs: ReadonlyMap<string, string>, answer: Pairs): LoginOutcome | undefined {
    if (this.chapWanted && !this.proven) {
      return fail(
        LoginStatus.authenticationFailure,
        "authentication",
        "the target wants CHAP and the initiator skips it",
      );
    }
    if (!this.declared) {
      this.declared = true;
      answer.push(["MaxRecvDataSegmentLength", String(maxReceiveDataSegmentBytes)]);
    }
    this.answerOperational(pairs, answer);
    return undefined;
  }

  private answerOperational(pairs: ReadonlyMap<string, string>, answer: Pairs): void {
    for (const [key, value] of pairs) {
      if (key === "AuthMethod" || chapKeys.has(key)) continue;
      const result = negotiate(key, value, this.parameters);
      if (result.answer !== undefined) answer.push([key, result.answer]);
    }
    if (this.parameters.firstBurstBytes > this.parameters.maxBurstBytes) {
      this.parameters.firstBurstBytes = this.parameters.maxBurstBytes;
    }
  }
}

function fail(status: number, reason: FailureReason, why: string): LoginOutcome {
  return { kind: "fail", status, reason, why };
}

function protocol(why: string): LoginOutcome {
  return fail(LoginStatus.initiatorError, "protocol", why);
}
