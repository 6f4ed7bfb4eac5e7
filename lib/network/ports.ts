/** What a service opens: one small JSON file per service in units/ports.d. */
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { known, text, whole } from "./fields.ts";

const opening = known({
  protocol: z.enum(["tcp", "udp"], { error: 'must be "tcp" or "udp"' }),
  port: whole("a port from 1 to 65535", 1, 65_535),
  networks: z
    .array(
      z.enum(["lan", "backplane", "netboot", "any"], {
        error: 'must be "lan", "backplane", "netboot" or "any"',
      }),
    )
    .min(1, { error: "must name at least one network" }),
  /** What listens there, for people. */
  why: text("a few words", (value) => /^[\w ,:;()/.'-]{3,80}$/.test(value)),
  /** New connections that one address may begin each second; twice as many at once. */
  newPerSecond: whole("a number from 1 to 10000", 1, 10_000).optional(),
});

const declaration = known({
  service: text("a service's name", (value) => /^[a-z][a-z0-9-]{0,40}$/.test(value)),
  opens: z.array(opening),
});

export type PortDeclaration = z.output<typeof declaration>;
export type Opening = PortDeclaration["opens"][number];

/** FORMAT_CORRUPT with the place if `text` isn't one. */
export function parsePortDeclaration(text: string, name: string): PortDeclaration {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KeelsonError("FORMAT_CORRUPT", `${name} is not valid JSON.`, { object: name, cause });
  }
  const result = declaration.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new KeelsonError("FORMAT_CORRUPT", `${name}: ${issue.path.join(".")} ${issue.message}.`, {
    object: name,
  });
}
