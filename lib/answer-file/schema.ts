/**
 * The answer file of an unattended install: what it may say and how it is refused. Every message
 * names the place, what was wrong and what is allowed; a password never appears in one.
 */
import { z } from "zod";
import { parseSize } from "#lib/model/size.ts";
import { checkNetworks } from "#lib/network/check.ts";
import { known, text } from "#lib/network/fields.ts";
import { networkShape } from "#lib/network/schema.ts";

/** Versions of the format that this program reads. */
export const answerFileVersion = 1;

const hostName = text(
  "a host name: letters a-z, digits and dashes, 1 to 63 characters, no dash at either end",
  (value) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(value),
);
const size = text('a size such as "64GiB" or "500M"', (value) => (parseSize(value) ?? 0) > 0);
const server = text("a host name or an address", (value) => /^[a-zA-Z0-9.:-]{1,253}$/.test(value));
const poolName = text("a pool's name or id", (value) => /^[\w .:-]{1,64}$/.test(value));
const timeZone = text('a time zone such as "Europe/Stockholm" or "UTC"', isTimeZone);

const hashForms = "$argon2id$v=19$… or $6$… (sha512-crypt)";
const passwordHash = z
  .string({ error: `must be a password hash: ${hashForms}` })
  .refine(isPasswordHash, {
    error: `is not a password hash; plain passwords are refused. Allowed: ${hashForms}. Make one with \`keelson answer-file hash\` or \`mkpasswd -m sha-512\``,
  });

const diskForms = 'one of "only", {"path": …}, {"serial": …}, {"model": …}, {"minSize": …}';
const disk = z.union(
  [
    z.literal("only"),
    z.strictObject({ path: text("a path below /dev", (path) => /^\/dev\/[\w./:+-]+$/.test(path)) }),
    z.strictObject({ serial: z.string().min(1) }),
    z.strictObject({ model: z.string().min(1) }),
    z.strictObject({ minSize: size }),
  ],
  { error: (issue) => `${issue.input === undefined ? "is missing; " : ""}must be ${diskForms}` },
);

const answers = known({
  version: z.literal(answerFileVersion, {
    error: (issue) =>
      issue.input === undefined
        ? `is missing; must be ${answerFileVersion}`
        : `must be ${answerFileVersion}: this installer reads no other version of the format`,
  }),
  node: known({ name: hostName }),
  disk,
  store: known({ size: size.optional(), pool: poolName.optional() }).default({}),
  erasePools: z.array(poolName, { error: "must be a list of pool names or ids" }).default([]),
  network: networkShape.prefault({}),
  timeZone: timeZone.default("UTC"),
  ntp: z.array(server, { error: "must be a list of time servers" }).default([]),
  /** Without a hash a password is made up and told once, on the screens, at the end. */
  admin: known({ passwordHash: passwordHash.optional() }).default({}),
  after: z
    .enum(["reboot", "poweroff"], { error: 'must be "reboot" or "poweroff"' })
    .default("reboot"),
}).superRefine(checkTogether);

/** What an answer file says, defaults filled in. */
export type Answers = z.output<typeof answers>;
/** What a program that writes an answer file gives. */
export type AnswersInput = z.input<typeof answers>;
export type DiskSelector = Answers["disk"];

export interface AnswerProblem {
  /** `network.lan.address`; empty for the file as a whole. */
  readonly path: string;
  readonly message: string;
}

/** The checked answers, or everything that is wrong with them. */
export function checkAnswers(
  value: unknown,
): { ok: true; answers: Answers } | { ok: false; problems: AnswerProblem[] } {
  const result = answers.safeParse(value);
  if (result.success) return { ok: true, answers: result.data };
  return {
    ok: false,
    problems: result.error.issues.map((issue) => ({
      path: issue.path.map((part) => (typeof part === "number" ? `[${part}]` : part)).join("."),
      message: issue.message,
    })),
  };
}

/** What no single field shows: addresses against each other. Runs beside refusals of fields. */
function checkTogether(value: z.output<typeof answersShape>, context: z.RefinementCtx): void {
  const refuse = (path: string, message: string) =>
    context.addIssue({ code: "custom", path: path.split("."), message, input: undefined });
  for (const { path, message } of checkNetworks(value.network)) {
    refuse(`network.${path}`, message);
  }
  if (value.store.pool !== undefined && value.store.size !== undefined) {
    refuse("store.size", "goes with a new store; store.pool takes an existing one as it is");
  }
  if (value.store.pool !== undefined && value.erasePools.includes(value.store.pool)) {
    refuse("store.pool", `'${value.store.pool}' is also in erasePools; it can't be both`);
  }
}

const answersShape = z.object({
  store: z.object({ size: z.string().optional(), pool: z.string().optional() }),
  erasePools: z.array(z.string()),
  network: networkShape,
});

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return /^[A-Z]/.test(name);
  } catch {
    return false;
  }
}

/** PHC string of argon2id (RFC 9106), or crypt(5)'s `$6$`. */
export function isPasswordHash(text: string): boolean {
  return (
    /^\$argon2id\$v=19\$m=\d{1,8},t=\d{1,3},p=\d{1,3}\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}$/.test(
      text,
    ) || /^\$6\$(?:rounds=\d{4,9}\$)?[A-Za-z0-9./]{1,16}\$[A-Za-z0-9./]{86}$/.test(text)
  );
}
