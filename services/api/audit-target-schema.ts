/**
 * Where the audit log's heads are sent, so that somebody else has them:
 *
 *   GET    /settings/audit-target        -> AuditTarget                        [settings:read]
 *   PUT    /settings/audit-target        AuditTargetChange -> AuditTarget      [settings:write]
 *   DELETE /settings/audit-target        -> 204                                [settings:write]
 *   POST   /settings/audit-target/test   sends the newest head -> AuditTargetTest
 *
 *   syslog+tls://logs.example.org:6514   RFC 5424 over TLS (RFC 5425)
 *   syslog+tcp://192.0.2.5:601           RFC 5424 over TCP, octet counting (RFC 6587)
 *   https://collector.example.org/heads  POST, a head a line (application/x-ndjson)
 */
import { z } from "zod";
import { caCertificateSchema } from "./identity-schema.ts";

const time = z.string().meta({ format: "date-time" });
/** RFC 5425 section 4.1. */
const syslogTlsPort = 6514;
const schemes = ["syslog+tls:", "syslog+tcp:", "https:"];

const targetUrlSchema = z
  .string()
  .trim()
  .max(500)
  .transform((text, context): string => {
    const issue = (message: string) => {
      context.addIssue({ code: "custom", message });
      return z.NEVER;
    };
    const example = "give it like syslog+tls://logs.example.org or https://example.org/heads.";
    if (!URL.canParse(text)) return issue(`"${text}" is not a URL; ${example}`);
    const url = new URL(text);
    if (!schemes.includes(url.protocol)) {
      return issue(`"${url.protocol}//" is none of ${schemes.join("//, ")}//; ${example}`);
    }
    if (url.username !== "" || url.password !== "" || url.hash !== "") {
      return issue("Give no user, password or fragment; a token has its own field.");
    }
    if (url.protocol === "https:") return url.href;
    if (!/^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]{1,253})$/.test(url.hostname)) {
      return issue(`"${url.hostname}" is no host name or address; ${example}`);
    }
    if (!["", "/"].includes(url.pathname) || url.search !== "") {
      return issue("Syslog has no path: give a host and a port.");
    }
    if (url.port === "0") return issue("Port 0 is none.");
    if (url.port !== "") return `${url.protocol}//${url.host}`;
    if (url.protocol === "syslog+tls:") return `${url.protocol}//${url.host}:${syslogTlsPort}`;
    return issue("Syslog over plain TCP has no port of its own: give one, such as :601.");
  })
  .meta({ type: "string", example: "syslog+tls://logs.example.org:6514" });

const shape = {
  url: targetUrlSchema,
  /** What the receiver's certificate is signed by, where no public authority did. */
  caCertificate: caCertificateSchema.nullable().default(null),
  /** A new head is sent after this time, */
  everySeconds: z.int().min(10).max(86_400).default(300),
  /** or earlier, after so many entries. */
  everyEntries: z.int().min(1).max(10_000).default(50),
};

/** The token is written and never read: left out, the present one stays; null takes it away. */
export const auditTargetChangeSchema = z
  .strictObject({
    ...shape,
    /** For https: sent as `Authorization: Bearer`. */
    token: z
      .string()
      .min(1)
      .max(2000)
      .regex(/^[\x21-\x7e]+$/, "A token is one word of printable ASCII.")
      .nullable()
      .optional(),
  })
  .meta({ id: "AuditTargetChange" });

export const auditTargetRecord = z.object({
  id: z.literal("target"),
  ...shape,
  token: z.string().nullable(),
  changedAt: time,
});

export const auditTargetSchema = z
  .object({
    /** Null: none is set, heads stay on the node. */
    settings: z
      .object({ ...shape, url: z.string(), tokenSet: z.boolean(), changedAt: time })
      .nullable(),
    /** The newest head that the target took since api started. */
    delivered: z.object({ sequence: z.int(), at: time }).nullable(),
    /** Heads that it has yet to take. */
    waiting: z.int(),
    /** Why the last try failed, and since when none has worked; null: nothing is wrong. */
    failure: z.object({ reason: z.string(), since: time }).nullable(),
  })
  .meta({ id: "AuditTarget" });

export const auditTargetTestSchema = z
  .object({ ok: z.boolean(), message: z.string() })
  .meta({ id: "AuditTargetTest" });

export type AuditTarget = z.infer<typeof auditTargetSchema>;
export type AuditTargetChange = z.input<typeof auditTargetChangeSchema>;
export type AuditTargetTest = z.infer<typeof auditTargetTestSchema>;
export type AuditTargetRecord = z.infer<typeof auditTargetRecord>;
