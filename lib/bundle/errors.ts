/** Why a bundle is refused: one class, one `problem` each, so that a caller can tell them apart. */
import { type ErrorCode, type ErrorDetails, KeelsonError } from "#lib/model/errors.ts";

export type BundleProblem =
  /** Not a bundle at all. */
  | "not-a-bundle"
  /** A format version that this program doesn't read. */
  | "format-unknown"
  /** It ends before its last part does. */
  | "truncated"
  /** More bytes than its manifest accounts for. */
  | "trailing-bytes"
  /** A length or a text that its format doesn't allow. */
  | "malformed"
  | "unsigned"
  /** The signature is not of this manifest: one of the two was changed. */
  | "signature-wrong"
  /** Signed by a key that no root key of this node has certified. */
  | "key-unknown"
  /** Signed by a release key that a newer one has replaced. */
  | "key-replaced"
  | "key-revoked"
  /** A part doesn't have the content that the manifest says. */
  | "part-wrong"
  /** For another architecture or another kind of machine. */
  | "hardware"
  /** Older than what runs, and not the version of the slot that last worked. */
  | "older"
  | "already-running"
  /** Too far ahead: another version must come first. */
  | "needs-newer-first"
  /** It can't read what this node has on its disks. */
  | "data-format"
  /** A development bundle on a production node. */
  | "development";

const codes: Record<BundleProblem, ErrorCode> = {
  "not-a-bundle": "FORMAT_UNKNOWN",
  "format-unknown": "FORMAT_UNKNOWN",
  truncated: "FORMAT_CORRUPT",
  "trailing-bytes": "FORMAT_CORRUPT",
  malformed: "FORMAT_CORRUPT",
  unsigned: "PERMISSION_DENIED",
  "signature-wrong": "PERMISSION_DENIED",
  "key-unknown": "PERMISSION_DENIED",
  "key-replaced": "PERMISSION_DENIED",
  "key-revoked": "PERMISSION_DENIED",
  "part-wrong": "FORMAT_CORRUPT",
  hardware: "CONFLICT",
  older: "CONFLICT",
  "already-running": "CONFLICT",
  "needs-newer-first": "CONFLICT",
  "data-format": "CONFLICT",
  development: "PERMISSION_DENIED",
};

export class BundleError extends KeelsonError {
  readonly problem: BundleProblem;

  constructor(problem: BundleProblem, message: string, details: ErrorDetails = {}) {
    super(codes[problem], message, { operation: "read bundle", ...details });
    this.problem = problem;
  }
}

/** True if `error` is a BundleError, and of `problem` where one is given. */
export function isBundleError(error: unknown, problem?: BundleProblem): error is BundleError {
  return error instanceof BundleError && (problem === undefined || error.problem === problem);
}
