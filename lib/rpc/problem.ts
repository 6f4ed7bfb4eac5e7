/** Problem details (RFC 9457): how errors cross a process boundary and come back as themselves. */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { type ErrorCode, type Issue, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";

const statuses: Record<ErrorCode, ContentfulStatusCode> = {
  INVALID_ARGUMENT: 400,
  NOT_FOUND: 404,
  ALREADY_EXISTS: 409,
  IN_USE: 409,
  CONFLICT: 409,
  UNAUTHENTICATED: 401,
  PERMISSION_DENIED: 403,
  RATE_LIMITED: 429,
  NO_SPACE: 507,
  MEDIA_ERROR: 500,
  FORMAT_UNKNOWN: 422,
  FORMAT_CORRUPT: 422,
  STORE_FAILED: 503,
  STALE_GENERATION: 409,
  PROTOCOL: 400,
  PORT_IN_USE: 409,
  UNAVAILABLE: 503,
  TIMEOUT: 504,
  CANCELLED: 409,
  UNSUPPORTED: 501,
  METHOD_NOT_ALLOWED: 405,
  PAYLOAD_TOO_LARGE: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  PRECONDITION_FAILED: 412,
  IDEMPOTENCY_KEY_REUSED: 422,
  INTERNAL: 500,
};

/** In the order of the statuses above: what a client may be told. */
export const errorCodes = Object.keys(statuses) as ErrorCode[];

/**
 * `type` and `code` are stable, one of each other; a program goes by one of them. `title` is for a
 * person and says what happened here; `detail` what can be done about it.
 */
export interface Problem {
  readonly type: string;
  readonly status: number;
  readonly code: ErrorCode;
  readonly title: string;
  readonly detail?: string;
  readonly object?: string;
  /** Of a request that was not understood: each fault. */
  readonly errors?: readonly Issue[];
}

/** A name, not an address (RFC 4151): nothing needs to be fetched to understand it. */
export function problemType(code: ErrorCode): string {
  return `tag:keelson.org,2026:problem:${code.toLowerCase().replaceAll("_", "-")}`;
}

export function problemOf(error: unknown): Problem {
  if (!isKeelsonError(error)) {
    return {
      type: problemType("INTERNAL"),
      status: 500,
      code: "INTERNAL",
      title: "Internal error.",
      detail: "The node's log says what happened.",
    };
  }
  return {
    type: problemType(error.code),
    status: statuses[error.code],
    code: error.code,
    title: error.message,
    ...(error.remedy === undefined ? {} : { detail: error.remedy }),
    ...(error.object === undefined ? {} : { object: error.object }),
    ...(error.issues === undefined ? {} : { errors: error.issues }),
  };
}

/** For `app.onError`: what isn't a KeelsonError is reported to `unexpected` and hidden from the caller. */
export function problemHandler(unexpected: (error: Error) => void) {
  return (error: Error, context: Context): Response => {
    if (!isKeelsonError(error)) unexpected(error);
    const problem = problemOf(error);
    return context.json(problem, problem.status as ContentfulStatusCode, {
      "content-type": "application/problem+json",
    });
  };
}

/** The error that a problem document stands for; anything else becomes UNAVAILABLE. */
export function errorOf(body: unknown, status: number): KeelsonError {
  const problem = body as Partial<Problem> | null;
  if (typeof problem?.code === "string" && problem.code in statuses) {
    return new KeelsonError(problem.code, problem.title ?? problem.code, {
      ...(problem.detail === undefined ? {} : { remedy: problem.detail }),
      ...(problem.object === undefined ? {} : { object: problem.object }),
      ...(problem.errors === undefined ? {} : { issues: problem.errors }),
    });
  }
  return new KeelsonError("UNAVAILABLE", `The service answered with status ${status}.`);
}
