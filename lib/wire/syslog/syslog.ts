/**
 * Syslog messages, RFC 5424, framed by octet counting for a stream: TLS (RFC 5425 section 4.3) or
 * plain TCP (RFC 6587 section 3.4.1).
 *
 *   97 <110>1 2026-11-21T08:00:00.000Z node-1 keelson - audit-head - {"hash":"..."}
 *   |  |    | |                        |      |       | |          | |
 *   |  |    | TIMESTAMP         HOSTNAME APP-NAME PROCID MSGID    SD MSG
 *   |  |    VERSION
 *   |  PRI = facility * 8 + severity
 *   length of all that follows the space, in octets
 *
 * PROCID and STRUCTURED-DATA are always nil: elements of one's own need an enterprise number.
 */
import { KeelsonError } from "../../model/errors.ts";

/** RFC 5424 section 6.2.1, table 1: log audit. */
export const facilityAudit = 13;
/** Table 2. */
export const severityInformational = 6;

export interface SyslogMessage {
  /** 0 to 23. */
  readonly facility: number;
  /** 0 to 7. */
  readonly severity: number;
  /** RFC 3339, at most microseconds. */
  readonly time: string;
  /** Cut to 255 printable ASCII characters; what isn't one becomes `-`. */
  readonly host: string;
  /** Cut to 48. */
  readonly app: string;
  /** What kind of message it is; cut to 32. */
  readonly kind: string;
  /** ASCII: other text would have to begin with a byte order mark. */
  readonly text: string;
}

/** INVALID_ARGUMENT for a facility, severity, time or text that RFC 5424 has no place for. */
export function encodeSyslog(message: SyslogMessage): string {
  const { facility, severity, time, text } = message;
  if (!within(facility, 23) || !within(severity, 7)) {
    throw invalid(`Facility ${facility}, severity ${severity}: there is no such priority.`);
  }
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$/.test(time)) {
    throw invalid(`${time} is no time of RFC 3339.`);
  }
  if (!/^[\x20-\x7e]*$/.test(text)) throw invalid("The text is not printable ASCII.");
  const head = `<${facility * 8 + severity}>1 ${time}`;
  const names = [name(message.host, 255), name(message.app, 48), "-", name(message.kind, 32)];
  return `${head} ${names.join(" ")} - ${text}`;
}

/** One after the other on a stream. */
export function frameSyslog(messages: readonly string[]): Buffer {
  const frames = messages.map((message) => `${Buffer.byteLength(message)} ${message}`);
  return Buffer.from(frames.join(""));
}

function within(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= most;
}

/** PRINTUSASCII, or the nil value. */
function name(text: string, most: number): string {
  const printable = text.replaceAll(/[^\x21-\x7e]/g, "-").slice(0, most);
  return printable === "" ? "-" : printable;
}

function invalid(message: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", message, { operation: "encode syslog message" });
}
