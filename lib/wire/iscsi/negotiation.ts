/**
 * Operational keys (RFC 7143 section 13): one row a key says how offer and own value combine. The
 * target here answers; what the initiator doesn't offer keeps its default.
 */
import { parseNumber } from "./text.ts";

export interface SessionParameters {
  headerDigest: boolean;
  dataDigest: boolean;
  /** What the initiator receives at most in one data segment. */
  maxSendDataSegmentBytes: number;
  maxBurstBytes: number;
  firstBurstBytes: number;
  initialR2T: boolean;
  immediateData: boolean;
  maxOutstandingR2T: number;
  time2WaitSeconds: number;
  time2RetainSeconds: number;
}

export function defaultParameters(): SessionParameters {
  return {
    headerDigest: false,
    dataDigest: false,
    maxSendDataSegmentBytes: 8192,
    maxBurstBytes: 262144,
    firstBurstBytes: 65536,
    initialR2T: true,
    immediateData: true,
    maxOutstandingR2T: 1,
    time2WaitSeconds: 2,
    time2RetainSeconds: 20,
  };
}

/** What this target declares; it bounds a data segment that comes in. */
export const maxReceiveDataSegmentBytes = 256 * 1024;

type Rule =
  | { readonly how: "list"; readonly supported: readonly string[] }
  | {
      readonly how: "min" | "max" | "declare";
      readonly own: number;
      readonly lowest: number;
      readonly highest: number;
    }
  | { readonly how: "and" | "or"; readonly own: boolean }
  | { readonly how: "ignore" };

const mebibyte = 1 << 20;
const segment = { lowest: 512, highest: (1 << 24) - 1 };

/** Section 13.x names, in its order. */
export const rules: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ["HeaderDigest", { how: "list", supported: ["None", "CRC32C"] }],
  ["DataDigest", { how: "list", supported: ["None", "CRC32C"] }],
  ["MaxConnections", { how: "min", own: 1, lowest: 1, highest: 65535 }],
  ["InitialR2T", { how: "or", own: false }],
  ["ImmediateData", { how: "and", own: true }],
  ["MaxRecvDataSegmentLength", { how: "declare", own: maxReceiveDataSegmentBytes, ...segment }],
  ["MaxBurstLength", { how: "min", own: mebibyte, ...segment }],
  ["FirstBurstLength", { how: "min", own: 262144, ...segment }],
  ["DefaultTime2Wait", { how: "max", own: 0, lowest: 0, highest: 3600 }],
  ["DefaultTime2Retain", { how: "min", own: 0, lowest: 0, highest: 3600 }],
  ["MaxOutstandingR2T", { how: "min", own: 1, lowest: 1, highest: 65535 }],
  ["DataPDUInOrder", { how: "or", own: true }],
  ["DataSequenceInOrder", { how: "or", own: true }],
  ["ErrorRecoveryLevel", { how: "min", own: 0, lowest: 0, highest: 2 }],
  ["IFMarker", { how: "and", own: false }],
  ["OFMarker", { how: "and", own: false }],
  ["TaskReporting", { how: "list", supported: ["RFC3720"] }],
  ["iSCSIProtocolLevel", { how: "min", own: 1, lowest: 0, highest: 31 }],
  ["InitiatorName", { how: "ignore" }],
  ["InitiatorAlias", { how: "ignore" }],
  ["TargetName", { how: "ignore" }],
  ["SessionType", { how: "ignore" }],
]);

/** Marker intervals mean nothing once markers are off (RFC 3720 appendix A). */
const irrelevant: ReadonlySet<string> = new Set(["IFMarkInt", "OFMarkInt"]);

export type KeyAnswer =
  /** `answer` undefined: nothing to say back. */
  | { readonly ok: true; readonly answer: string | undefined }
  | { readonly ok: false; readonly answer: "Reject" };

const reject: KeyAnswer = { ok: false, answer: "Reject" };

/**
 * Answers one offered key and stores the result in `parameters`. `Reject` is an answer, not an end:
 * the default stays (section 6.2).
 */
export function negotiate(key: string, value: string, parameters: SessionParameters): KeyAnswer {
  if (irrelevant.has(key)) return { ok: true, answer: "Irrelevant" };
  const rule = rules.get(key);
  if (rule === undefined) return { ok: true, answer: "NotUnderstood" };
  switch (rule.how) {
    case "ignore":
      return { ok: true, answer: undefined };
    case "list": {
      const choice = value.split(",").find((item) => rule.supported.includes(item));
      if (choice === undefined) return reject;
      if (key === "HeaderDigest") parameters.headerDigest = choice === "CRC32C";
      if (key === "DataDigest") parameters.dataDigest = choice === "CRC32C";
      return { ok: true, answer: choice };
    }
    case "and":
    case "or": {
      if (value !== "Yes" && value !== "No") return reject;
      const offered = value === "Yes";
      const result = rule.how === "and" ? offered && rule.own : offered || rule.own;
      if (key === "InitialR2T") parameters.initialR2T = result;
      if (key === "ImmediateData") parameters.immediateData = result;
      return { ok: true, answer: result ? "Yes" : "No" };
    }
    case "declare":
    case "min":
    case "max": {
      const offered = parseNumber(value, rule.lowest, rule.highest);
      if (offered === undefined) return reject;
      if (rule.how === "declare") {
        parameters.maxSendDataSegmentBytes = offered;
        return { ok: true, answer: undefined };
      }
      const result = rule.how === "min" ? Math.min(offered, rule.own) : Math.max(offered, rule.own);
      storeNumber(key, result, parameters);
      return { ok: true, answer: String(result) };
    }
  }
}

function storeNumber(key: string, result: number, parameters: SessionParameters): void {
  switch (key) {
    case "MaxBurstLength":
      parameters.maxBurstBytes = result;
      break;
    case "FirstBurstLength":
      parameters.firstBurstBytes = result;
      break;
    case "MaxOutstandingR2T":
      parameters.maxOutstandingR2T = result;
      break;
    case "DefaultTime2Wait":
      parameters.time2WaitSeconds = result;
      break;
    case "DefaultTime2Retain":
      parameters.time2RetainSeconds = result;
      break;
  }
}
