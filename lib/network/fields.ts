/** Schema fields that say what was wrong with them and what is allowed. */
import { z } from "zod";
import { parseMacAddress } from "#lib/model/ids.ts";
import { parseIpv4, parseIpv4Subnet, subnetContains } from "./ipv4.ts";

/** An object that knows its names: another one is refused with the list. */
export function known<Shape extends z.ZodRawShape>(shape: Shape) {
  const names = Object.keys(shape).join(", ");
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code === "unrecognized_keys") {
        const unknown = (issue.keys ?? []).map((key: string) => `'${key}'`).join(", ");
        return `${unknown} is not known here; known are: ${names}`;
      }
      return `must be an object with: ${names}`;
    },
  });
}

export function text(allowed: string, accepts: (value: string) => boolean) {
  const message = (input: unknown) =>
    input === undefined ? `is missing; must be ${allowed}` : `must be ${allowed}`;
  return z
    .string({ error: (issue) => message(issue.input) })
    .refine(accepts, { error: (issue) => `${JSON.stringify(issue.input)} is not ${allowed}` });
}

/** A whole number from `min` to `max`, both included. */
export function whole(allowed: string, min: number, max: number) {
  const error = (issue: { readonly input?: unknown }) =>
    issue.input === undefined
      ? `is missing; must be ${allowed}`
      : `${JSON.stringify(issue.input)} is not ${allowed}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

/** True for an IPv4 address that one machine can have: not 0/8, loopback, multicast or above. */
export function isHost(value: number | undefined): boolean {
  return value !== undefined && value >>> 24 !== 0 && value >>> 24 < 224 && value >>> 24 !== 127;
}

export const address = text('an IPv4 address such as "192.0.2.1"', (value) =>
  isHost(parseIpv4(value)),
);

export const addressWithPrefix = text(
  'an IPv4 address with its prefix length (1 to 30), such as "192.0.2.10/24"',
  (value) => {
    const subnet = parseIpv4Subnet(value);
    return subnet !== undefined && subnetContains(subnet, subnet.address);
  },
);

/** Linux allows more in a name; these are what udev gives. */
export function isInterfaceName(value: string): boolean {
  return /^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$/.test(value);
}

/** A port by name or MAC address. */
export const port = text(
  'an interface name such as "enp1s0", or a MAC address',
  (value) => value !== "first" && (parseMacAddress(value) !== undefined || isInterfaceName(value)),
);

/** A port, `first`, or a bond by its name. */
export const interfaceName = text(
  '"first", an interface name such as "enp1s0", or a MAC address',
  (value) => parseMacAddress(value) !== undefined || isInterfaceName(value),
);
