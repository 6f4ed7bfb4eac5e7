/**
 * Log lines on stderr for the journal: `<level>message key=value ...`. systemd reads the level
 * prefix (sd-daemon(3)). Secrets are never passed in here.
 */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Log {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
}

const levels = { error: 3, warn: 4, info: 6, debug: 7 } as const;

function formatValue(value: string | number | boolean): string {
  const text = String(value);
  return /^[\w.:/@+-]*$/.test(text) && text !== "" ? text : JSON.stringify(text);
}

/** `name` starts each line unless the journal (JOURNAL_STREAM) names the unit already. */
export function createLog(name: string, environment: NodeJS.ProcessEnv = process.env): Log {
  const journal = environment.JOURNAL_STREAM !== undefined;
  const debug = environment.KEELSON_DEBUG !== undefined;
  const write = (level: keyof typeof levels, message: string, fields: LogFields = {}) => {
    if (level === "debug" && !debug) return;
    const pairs = Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => ` ${key}=${formatValue(value as string)}`)
      .join("");
    const prefix = journal
      ? `<${levels[level]}>`
      : `${name}: ${level === "info" ? "" : `${level}: `}`;
    process.stderr.write(`${prefix}${message.replaceAll("\n", " ")}${pairs}\n`);
  };
  return {
    error: (message, fields) => write("error", message, fields),
    warn: (message, fields) => write("warn", message, fields),
    info: (message, fields) => write("info", message, fields),
    debug: (message, fields) => write("debug", message, fields),
  };
}
