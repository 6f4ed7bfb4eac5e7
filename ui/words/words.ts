/**
 * What the console says, from one catalogue, so that another language is one more file beside
 * `en.ts`. Placeholders stand in braces; a message with a count has a form for each plural category
 * of its language (CLDR, by Intl.PluralRules).
 */
import { en } from "./en.ts";

/** Of the catalogue; Intl formats numbers and dates by the person's own locale. */
const catalogue = en;
export const language = "en";

type Catalogue = typeof en;
export type MessageKey = keyof Catalogue;

type Names<Text> = Text extends `${string}{${infer Name}}${infer Rest}`
  ? Name | Names<Rest>
  : never;
type Form<Message> = Message extends string ? Message : Message[keyof Message];
type Values<Key extends MessageKey> = Names<Form<Catalogue[Key]>>;
/** Keys of messages that stand alone, without values. */
export type PlainKey = {
  [Key in MessageKey]: [Values<Key>] extends [never] ? Key : never;
}[MessageKey];
type Arguments<Key extends MessageKey> = [Values<Key>] extends [never]
  ? []
  : [values: { readonly [Name in Values<Key>]: string | number }];

const plural = new Intl.PluralRules(language);
const number = new Intl.NumberFormat();

/** `t("users.deleted", { name })`. A message with plural forms is chosen by its `count`. */
export function t<Key extends MessageKey>(key: Key, ...[values]: Arguments<Key>): string {
  return fill(catalogue[key], values as Record<string, string | number> | undefined);
}

/** For tests and for `t`: the form of the message that fits, its placeholders filled in. */
export function fill(
  message: string | Readonly<Record<string, string>>,
  values: Readonly<Record<string, string | number>> = {},
): string {
  const text =
    typeof message === "string"
      ? message
      : (message[plural.select(Number(values.count))] ?? message.other);
  return text.replaceAll(/\{(\w+)\}/g, (hole, name: string) => {
    const value = values[name];
    return value === undefined ? hole : typeof value === "number" ? number.format(value) : value;
  });
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

/** Date and time in the person's own zone and way of writing; "unknown" for what is no time. */
export function formatMoment(at: string | number): string {
  const atMs = typeof at === "number" ? at : Date.parse(at);
  return Number.isFinite(atMs) ? moment.format(atMs) : t("time.unknown");
}

export function formatDay(at: string | number): string {
  const atMs = typeof at === "number" ? at : Date.parse(at);
  return Number.isFinite(atMs) ? day.format(atMs) : t("time.unknown");
}

export function formatNumber(value: number): string {
  return number.format(value);
}

const list = new Intl.ListFormat(language, { type: "conjunction" });

/** `a, b, and c` */
export function formatList(items: readonly string[]): string {
  return list.format(items);
}
