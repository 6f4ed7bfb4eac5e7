/** A password for a node whose answers have none: told once, at the end, and kept nowhere. */
import { randomInt } from "node:crypto";

/** Without what looks alike on a screen: 0 o, 1 l i. */
const alphabet = "23456789abcdefghjkmnpqrstuvwxyz";

/** Five groups of four, 99 bits: `k7pd-x2mq-...`. */
export function randomPassword(): string {
  const group = () =>
    Array.from({ length: 4 }, () => alphabet[randomInt(alphabet.length)]).join("");
  return Array.from({ length: 5 }, group).join("-");
}
