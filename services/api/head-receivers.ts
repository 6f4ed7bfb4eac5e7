/**
 * Hands heads of the audit log to a receiver, and says whether it has them.
 *
 *   https    it answered 2xx
 *   syslog   has no acknowledgement of its own: each delivery is one connection, which this side ends
 *            first, a moment after it wrote; the receiver has read up to that end when it then ends
 *            its own half in order. One that had closed already is found out in that moment.
 */
import { request } from "node:https";
import { connect, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { AuditHead } from "#lib/audit/chain.ts";
import { headLine } from "#lib/audit/heads.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  encodeSyslog,
  facilityAudit,
  frameSyslog,
  severityInformational,
} from "#lib/wire/syslog/syslog.ts";
import type { AuditTargetRecord } from "./audit-target-schema.ts";

export interface Delivery {
  readonly target: Pick<AuditTargetRecord, "url" | "caCertificate" | "token">;
  /** Oldest first. */
  readonly heads: readonly AuditHead[];
  readonly nodeName: string;
  /** Wall clock, ISO 8601. */
  readonly now: string;
  /** Ends it early; TIMEOUT where that was by AbortSignal.timeout. */
  readonly signal: AbortSignal;
}

/** Longer than a round trip: until then a receiver that takes nothing has said so. */
const settleMs = 400;

/** UNAVAILABLE, PERMISSION_DENIED, PROTOCOL or TIMEOUT, in words for whoever set the target. */
export async function deliver(delivery: Delivery): Promise<void> {
  const url = new URL(delivery.target.url);
  try {
    if (url.protocol === "https:") await post(delivery, url);
    else await sendSyslog(delivery, url);
  } catch (error) {
    throw explained(error, url, delivery.signal);
  }
}

function post({ target, heads, nodeName, signal }: Delivery, url: URL): Promise<void> {
  const body = heads.map((head) => `${headLine(head, nodeName)}\n`).join("");
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      {
        method: "POST",
        signal,
        agent: false,
        headers: {
          "content-type": "application/x-ndjson",
          "content-length": Buffer.byteLength(body),
          "user-agent": "keelson",
          ...(target.token === null ? {} : { authorization: `Bearer ${target.token}` }),
        },
        ...(target.caCertificate === null ? {} : { ca: target.caCertificate }),
      },
      (answer) => {
        // What it says beside the status is nothing to us, and may be long.
        answer.on("error", () => {});
        answer.destroy();
        const status = answer.statusCode ?? 0;
        if (status >= 200 && status < 300) resolve();
        else reject(refusal(url, status));
      },
    );
    sent.once("error", reject);
    sent.end(body);
  });
}

function refusal({ host }: URL, status: number): KeelsonError {
  const told = `${host} answers with status ${status}.`;
  if (status === 401 || status === 403) {
    return new KeelsonError("PERMISSION_DENIED", told, { remedy: "Check the token." });
  }
  const moved = status >= 300 && status < 400;
  return new KeelsonError("PROTOCOL", told, {
    remedy: moved
      ? "Redirections are not followed: give the address that it leads to."
      : "Check the address, and the receiver's own log.",
  });
}

function sendSyslog(delivery: Delivery, url: URL): Promise<void> {
  const { target, heads, nodeName, now, signal } = delivery;
  const frames = frameSyslog(
    heads.map((head) =>
      encodeSyslog({
        facility: facilityAudit,
        severity: severityInformational,
        time: now,
        host: nodeName,
        app: "keelson",
        kind: "audit-head",
        text: headLine(head, nodeName),
      }),
    ),
  );
  return new Promise((resolve, reject) => {
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const where = { host, port: Number(url.port) };
    const tls = url.protocol === "syslog+tls:";
    const socket: Socket = tls
      ? connectTls({
          ...where,
          ...(isIP(host) === 0 ? { servername: host } : {}),
          ...(target.caCertificate === null ? {} : { ca: target.caCertificate }),
          minVersion: "TLSv1.2",
        })
      : connect(where);
    let ending = false;
    let ended = false;
    let settled: NodeJS.Timeout | undefined;
    const abort = () => socket.destroy(signal.reason as Error);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    socket.once(tls ? "secureConnect" : "connect", () => {
      socket.write(frames, () => {
        settled = setTimeout(() => {
          ending = true;
          socket.end();
        }, settleMs);
      });
    });
    // Without reading, the end would never be seen; what a receiver says here means nothing.
    socket.resume();
    socket.once("end", () => {
      ended = ending;
    });
    socket.once("error", reject);
    socket.once("close", () => {
      clearTimeout(settled);
      signal.removeEventListener("abort", abort);
      if (ended) resolve();
      else reject(brokenOff(url));
    });
  });
}

function brokenOff({ host }: URL): KeelsonError {
  return new KeelsonError("PROTOCOL", `${host} ended the connection before it had the heads.`, {
    remedy: "Check that it takes this kind of syslog, and the receiver's own log.",
  });
}

const words: Record<string, string> = {
  ECONNREFUSED: "refuses connections",
  ECONNRESET: "broke the connection off",
  EPIPE: "broke the connection off",
  EHOSTUNREACH: "can't be reached",
  ENETUNREACH: "can't be reached",
  ETIMEDOUT: "doesn't answer",
  ENOTFOUND: "is a name that nobody knows",
  EAI_AGAIN: "is a name that could not be asked for: DNS doesn't answer",
};

function explained(error: unknown, { host }: URL, signal: AbortSignal): KeelsonError {
  if (error instanceof KeelsonError) return error;
  if (signal.aborted) {
    return new KeelsonError("TIMEOUT", `${host} did not take the heads in time.`, {
      remedy: "Check the receiver; for syslog, that it ends the connection when the node does.",
    });
  }
  const { code = "", message } = error as NodeJS.ErrnoException;
  const known = words[code];
  if (known !== undefined) {
    return new KeelsonError("UNAVAILABLE", `${host} ${known}.`, {
      remedy: "Check the address, the port, and the firewalls between.",
      cause: error,
    });
  }
  const certificate = /CERT|ISSUER|SIGNATURE|ALTNAME/.test(code);
  const line = message.replaceAll(/[^\x20-\x7e]+/g, " ").slice(0, 200);
  if (certificate) {
    return new KeelsonError("UNAVAILABLE", `The certificate of ${host} is not trusted: ${line}.`, {
      remedy: "Give the certificate of its CA; it must be for that name.",
      cause: error,
    });
  }
  return new KeelsonError("UNAVAILABLE", `${host}: ${line}.`, { cause: error });
}
