/** Wall clock of a time zone, with its changes of summer and winter time. No imports: the console uses it too. */

/** In the order of ISO 8601. */
export const weekdays = [
  "monday",
  "tuesday",
  "wednesday",
  "thursday",
  "friday",
  "saturday",
  "sunday",
] as const;
export type Weekday = (typeof weekdays)[number];

export interface LocalTime {
  readonly year: number;
  /** 1 to 12. */
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function formatOf(zone: string): Intl.DateTimeFormat {
  let format = formats.get(zone);
  if (format === undefined) {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
    formats.set(zone, format);
  }
  return format;
}

export function nodeTimeZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

export function localTime(atMs: number, zone: string): LocalTime & { readonly second: number } {
  const parts = new Map<string, number>(
    formatOf(zone)
      .formatToParts(atMs)
      .map(({ type, value }) => [type, Number(value)]),
  );
  const part = (name: string) => parts.get(name)!;
  return {
    year: part("year"),
    month: part("month"),
    day: part("day"),
    hour: part("hour"),
    minute: part("minute"),
    second: part("second"),
  };
}

function offsetMs(atMs: number, zone: string): number {
  const { year, month, day, hour, minute, second } = localTime(atMs, zone);
  const wholeMs = Math.floor(atMs / 1000) * 1000;
  return Date.UTC(year, month - 1, day, hour, minute, second) - wholeMs;
}

/** The first instant with this wall clock; where the clock skips it, as much later as it skips. */
export function instantOf({ year, month, day, hour, minute }: LocalTime, zone: string): number {
  const asUtcMs = Date.UTC(year, month - 1, day, hour, minute);
  const dayMs = 86_400_000;
  const before = offsetMs(asUtcMs - dayMs, zone);
  const after = offsetMs(asUtcMs + dayMs, zone);
  const valid = [before, after]
    .filter((offset) => offsetMs(asUtcMs - offset, zone) === offset)
    .map((offset) => asUtcMs - offset);
  return valid.length === 0 ? asUtcMs - before : Math.min(...valid);
}

/** Days since 1970-01-01 of a date of the calendar. */
export function dayNumber({ year, month, day }: Pick<LocalTime, "year" | "month" | "day">): number {
  return Date.UTC(year, month - 1, day) / 86_400_000;
}

export function dateOf(dayNumber: number): Pick<LocalTime, "year" | "month" | "day"> {
  const date = new Date(dayNumber * 86_400_000);
  return { year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate() };
}
