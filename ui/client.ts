/** Requests to api, same origin. The session is an HttpOnly cookie: nothing secret is kept here. */
import { signal } from "@preact/signals";
import type { ErrorCode } from "#lib/model/errors.ts";
import type { LogIn, LogInChallenge, SessionInfo } from "../services/api/accounts-schema.ts";

/** What a problem document (RFC 9457) says to a person. */
export interface Failure {
  readonly title: string;
  readonly detail: string | undefined;
  readonly code: ErrorCode | undefined;
}

export class RequestError extends Error {
  readonly failure: Failure;
  constructor(failure: Failure) {
    super(failure.title);
    this.failure = failure;
  }
}

export function asFailure(error: unknown): Failure {
  if (error instanceof RequestError) return error.failure;
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return {
      title: "The node did not answer in time.",
      detail: "It may be busy: look at the conditions, then try again.",
      code: "TIMEOUT",
    };
  }
  if (error instanceof TypeError) return unreachable;
  return { title: String(error), detail: undefined, code: undefined };
}

const unreachable: Failure = {
  title: "The node cannot be reached.",
  detail: "Check that it is on and that this computer is still in its network, then try again.",
  code: "UNAVAILABLE",
};

/** Who is logged in; undefined until known, null when nobody is. */
export const session = signal<SessionInfo | null | undefined>(undefined);

const base = "/api/v1";

/** Lets the browser save what the node sends; how that goes is shown by the browser. */
export function downloadFile(path: string): void {
  const anchor = document.createElement("a");
  anchor.href = `${base}${path}`;
  anchor.download = "";
  anchor.click();
}

const requestTimeoutMs = 30_000;

export async function failureOf(response: Response): Promise<Failure> {
  const body = (await response.json().catch(() => null)) as {
    title?: string;
    detail?: string;
    code?: ErrorCode;
  } | null;
  return {
    title: body?.title ?? `The node answered with status ${response.status}.`,
    detail: body?.detail,
    code: body?.code,
  };
}

/** Throws RequestError with api's own words; a 401 ends the session on the screen too. */
export async function request<Body>(method: string, path: string, body?: unknown): Promise<Body> {
  const response = await fetch(`${base}${path}`, {
    method,
    credentials: "same-origin",
    signal: AbortSignal.timeout(requestTimeoutMs),
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  if (!response.ok) {
    const failure = await failureOf(response);
    // Under /session a 401 may mean the password that was given, not the session.
    if (response.status === 401 && !path.startsWith("/session")) session.value = null;
    // Roles may have been taken away meanwhile: what is offered follows.
    if (response.status === 403) void resumeSession().catch(() => undefined);
    throw new RequestError(failure);
  }
  return (response.status === 204 ? undefined : await response.json()) as Body;
}

/** Asks whether the cookie is still good. */
export async function resumeSession(): Promise<void> {
  try {
    session.value = await request<SessionInfo>("GET", "/session");
  } catch (error) {
    if (asFailure(error).code === "UNAUTHENTICATED") session.value = null;
    else throw error;
  }
}

/** Logged in; or, where a second step is asked for, what it is to be answered to. */
export async function logIn(credentials: LogIn): Promise<LogInChallenge | undefined> {
  const answer = await request<SessionInfo | LogInChallenge>("POST", "/session", credentials);
  if ("challenge" in answer) return answer;
  session.value = answer;
  return undefined;
}

export async function confirmLogIn({ challenge }: LogInChallenge, code: string): Promise<void> {
  session.value = await request<SessionInfo>("POST", "/session/second-factor", {
    challenge,
    code: code.trim(),
  });
}

/** Who came by the identity provider goes there to log out, where it has a page for that. */
export async function logOut(): Promise<void> {
  const { url } = await request<{ url: string | null }>("POST", "/session/log-out");
  session.value = null;
  if (url !== null) location.assign(url);
}

/** Sends a file's bytes. `fetch` tells nothing of its progress, hence XMLHttpRequest. */
export function sendFile<Answer>(
  method: "PUT" | "POST",
  path: string,
  file: Blob,
  signal: AbortSignal,
  onProgress: (sentBytes: number) => void,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const transfer = new XMLHttpRequest();
    transfer.open(method, `${base}${path}`);
    transfer.setRequestHeader("content-type", "application/octet-stream");
    for (const [name, value] of Object.entries(headers)) transfer.setRequestHeader(name, value);
    transfer.responseType = "json";
    transfer.upload.onprogress = (event) => onProgress(event.loaded);
    transfer.onload = () => {
      const body = transfer.response as (Answer & Partial<Failure>) | null;
      if (transfer.status >= 200 && transfer.status < 300) resolve(body as Answer);
      else {
        reject(
          new RequestError({
            title: body?.title ?? `The node answered with status ${transfer.status}.`,
            detail: body?.detail,
            code: body?.code,
          }),
        );
      }
    };
    transfer.onerror = () => reject(new RequestError(unreachable));
    transfer.onabort = () => reject(new DOMException("Upload cancelled.", "AbortError"));
    signal.addEventListener("abort", () => transfer.abort());
    transfer.send(file);
  });
}
