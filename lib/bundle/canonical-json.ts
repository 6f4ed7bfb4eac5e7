/**
 * JSON with one spelling for each value (RFC 8785, for the values that bundles hold): keys sorted
 * by UTF-16 code unit, no white space, whole numbers only. What is signed can't be read two ways.
 */
import { KeelsonError } from "#lib/model/errors.ts";

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json };

/** INVALID_ARGUMENT for what has no canonical form: a fraction, half a surrogate pair, undefined. */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number" && Number.isSafeInteger(value) && !Object.is(value, -0)) {
    return String(value);
  }
  if (typeof value === "string" && value.isWellFormed()) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    const members = Object.keys(value)
      .sort()
      .map(
        (key) => `${canonicalJson(key)}:${canonicalJson((value as Record<string, unknown>)[key])}`,
      );
    return `{${members.join(",")}}`;
  }
  throw new KeelsonError("INVALID_ARGUMENT", "A value has no canonical JSON form.");
}
