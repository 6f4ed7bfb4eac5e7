/** Problem details (RFC 9457): how errors cross a process boundary and come back as themselves. */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { type ErrorCode, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";

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
  INTERNAL: 500,
};

export interface Problem {
  readonly type: "about:blank";
  readonly status: number;
  readonly code: ErrorCode;
  readonly title: string;
  readonly detail?: string;
  readonly object?: string;
}

export function problemOf(error: unknown): Problem {
  if (!isKeelsonError(error)) {
    return { type: "about:blank", status: 500, code: "INTERNAL", title: "Internal error." };
  }
  return {
    type: "about:blank",
    status: statuses[error.code],
    code: error.code,
    title: error.message,
    ...(error.remedy === undefined ? {} : { detail: error.remedy }),
    ...(error.object === undefined ? {} : { object: error.object }),
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
    });
  }
  return new KeelsonError("UNAVAILABLE", `The service answered with status ${status}.`);
}
