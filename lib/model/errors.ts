/**
 * One error class with stable codes. `message` is what a person reads: what was wrong, with what,
 * and what to do. Codes are part of the API: never renamed, never reused.
 */
export type ErrorCode =
  | "INVALID_ARGUMENT"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "IN_USE"
  | "CONFLICT"
  | "UNAUTHENTICATED"
  | "PERMISSION_DENIED"
  | "RATE_LIMITED"
  | "NO_SPACE"
  | "MEDIA_ERROR"
  | "FORMAT_UNKNOWN"
  | "FORMAT_CORRUPT"
  | "STORE_FAILED"
  | "STALE_GENERATION"
  | "PROTOCOL"
  | "PORT_IN_USE"
  | "UNAVAILABLE"
  | "TIMEOUT"
  | "CANCELLED"
  | "UNSUPPORTED"
  | "METHOD_NOT_ALLOWED"
  | "PAYLOAD_TOO_LARGE"
  | "UNSUPPORTED_MEDIA_TYPE"
  | "PRECONDITION_FAILED"
  | "IDEMPOTENCY_KEY_REUSED"
  | "INTERNAL";

/** One fault of a request: where it is, and what is wrong there. */
export interface Issue {
  /** `sizeBytes`, `settings.pool.first`; empty: the whole. */
  readonly field: string;
  readonly message: string;
}

export interface ErrorDetails {
  /** What was being done, as a verb phrase: "import image". */
  readonly operation?: string;
  /** What it was done to: an id, a path, an address. */
  readonly object?: string;
  /** What the reader can do about it, as a sentence. */
  readonly remedy?: string;
  /** For a request with several faults: each of them; the message has them all. */
  readonly issues?: readonly Issue[];
  readonly cause?: unknown;
}

export class KeelsonError extends Error {
  override readonly name = "KeelsonError";
  readonly code: ErrorCode;
  readonly operation: string | undefined;
  readonly object: string | undefined;
  readonly remedy: string | undefined;
  readonly issues: readonly Issue[] | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.operation = details.operation;
    this.object = details.object;
    this.remedy = details.remedy;
    this.issues = details.issues;
  }
}

/** True if `error` is a KeelsonError, and of `code` where one is given. */
export function isKeelsonError(error: unknown, code?: ErrorCode): error is KeelsonError {
  return error instanceof KeelsonError && (code === undefined || error.code === code);
}

/** One line for a person: message and remedy, never a stack trace. */
export function explainError(error: unknown): string {
  if (isKeelsonError(error)) {
    return error.remedy === undefined ? error.message : `${error.message} ${error.remedy}`;
  }
  return error instanceof Error ? error.message : String(error);
}
