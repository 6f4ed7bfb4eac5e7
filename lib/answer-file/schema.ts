/**
 * The answer file of an unattended install: what it may say and how it is refused. Every message
 * names the place, what was wrong and what is allowed; a password never appears in one.
 */
import { z } from "zod";
import { parseMacAddress } from "#lib/model/ids.ts";
import { parseSize } from "#lib/model/size.ts";
import { type Ipv4Subnet, parseIpv4, parseIpv4Subnet, subnetContains } from "./ipv4.ts";

/** Versions of the format that this program reads. */
export const answerFileVersion = 1;

/** An object that knows its names: another one is refused with the list. */
function known<Shape extends z.ZodRawShape>(shape: Shape) {
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

function text(allowed: string, accepts: (value: string) => boolean) {
  const message = (input: unknown) =>
    input === undefined ? `is missing; must be ${allowed}` : `must be ${allowed}`;
  return z
    .string({ error: (issue) => message(issue.input) })
    .refine(accepts, { error: (issue) => `${JSON.stringify(issue.input)} is not ${allowed}` });
}

const hostName = text(
  "a host name: letters a-z, digits and dashes, 1 to 63 characters, no dash at either end",
  (value) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(value),
);
const size = text('a size such as "64GiB" or "500M"', (value) => (parseSize(value) ?? 0) > 0);
const address = text('an IPv4 address such as "192.0.2.1"', (value) => isHost(parseIpv4(value)));
const addressWithPrefix = text(
  'an IPv4 address with its prefix length (1 to 30), such as "192.0.2.10/24"',
  (value) => {
    const subnet = parseIpv4Subnet(value);
    return subnet !== undefined && subnetContains(subnet, subnet.address);
  },
);
const interfaceName = text(
  '"first", an interface name such as "enp1s0", or a MAC address',
  (value) => parseMacAddress(value) !== undefined || /^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$/.test(value),
);
const server = text("a host name or an address", (value) => /^[a-zA-Z0-9.:-]{1,253}$/.test(value));
const poolName = text("a pool's name or id", (value) => /^[\w .:-]{1,64}$/.test(value));
const timeZone = text('a time zone such as "Europe/Stockholm" or "UTC"', isTimeZone);

const hashForms = "$argon2id$v=19$… or $6$… (sha512-crypt)";
const passwordHash = z
  .string({ error: `is missing; must be a password hash: ${hashForms}` })
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

const lan = known({
  interface: interfaceName.default("first"),
  address: z
    .union([z.literal("dhcp"), addressWithPrefix], {
      error: 'must be "dhcp", or an IPv4 address with its prefix length, such as "192.0.2.10/24"',
    })
    .default("dhcp"),
  gateway: address.optional(),
  dns: z.array(address, { error: "must be a list of IPv4 addresses" }).default([]),
});

const netboot = known({
  interface: interfaceName,
  mode: z.enum(["server", "proxy"], {
    error: 'must be "server" (this node is the DHCP server) or "proxy" (beside another one)',
  }),
  address: addressWithPrefix.optional(),
  pool: text(
    'a range of addresses such as "10.77.0.100-10.77.0.199"',
    (value) => parsePool(value) !== undefined,
  ).optional(),
  gateway: address.optional(),
  dns: z.array(address, { error: "must be a list of IPv4 addresses" }).default([]),
});

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
  network: known({ lan: lan.prefault({}), netboot: netboot.optional() }).prefault({}),
  timeZone: timeZone.default("UTC"),
  ntp: z.array(server, { error: "must be a list of time servers" }).default([]),
  admin: known({ passwordHash }),
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
  const { lan, netboot } = value.network;
  const lanSubnet = lan.address === "dhcp" ? undefined : parseIpv4Subnet(lan.address);
  if (lanSubnet === undefined && lan.gateway !== undefined) {
    refuse("network.lan.gateway", "is only allowed with a static address; DHCP gives the gateway");
  }
  const gateway = parseIpv4(lan.gateway ?? "");
  if (lanSubnet !== undefined && gateway !== undefined) {
    if (!subnetContains(lanSubnet, gateway)) {
      refuse("network.lan.gateway", `${lan.gateway} is not in the subnet of ${lan.address}`);
    }
  }
  if (value.store.pool !== undefined && value.store.size !== undefined) {
    refuse("store.size", "goes with a new store; store.pool takes an existing one as it is");
  }
  if (value.store.pool !== undefined && value.erasePools.includes(value.store.pool)) {
    refuse("store.pool", `'${value.store.pool}' is also in erasePools; it can't be both`);
  }
  if (netboot === undefined) return;
  const shared = netboot.interface === lan.interface;
  if (shared && netboot.address !== undefined) {
    refuse("network.netboot.address", "this interface has the address of network.lan already");
  }
  if (!shared && netboot.address === undefined) {
    refuse("network.netboot.address", "is missing; an interface of its own needs an address");
  }
  const subnet = shared ? lanSubnet : parseIpv4Subnet(netboot.address ?? "");
  if (netboot.mode === "proxy") {
    if (netboot.pool !== undefined) {
      refuse("network.netboot.pool", "is not allowed as proxy: the other server gives addresses");
    }
    return;
  }
  if (shared && lanSubnet === undefined) {
    refuse(
      "network.netboot.mode",
      'a DHCP server needs a static address on its interface: set network.lan.address, or use mode "proxy"',
    );
  }
  if (netboot.pool === undefined) {
    refuse("network.netboot.pool", "is missing; a DHCP server needs addresses to give");
    return;
  }
  if (subnet !== undefined) checkPool(netboot.pool, subnet, refuse);
}

const answersShape = z.object({
  store: z.object({ size: z.string().optional(), pool: z.string().optional() }),
  erasePools: z.array(z.string()),
  network: z.object({ lan, netboot: netboot.optional() }),
});

function checkPool(
  text: string,
  subnet: Ipv4Subnet,
  refuse: (path: string, message: string) => void,
): void {
  const pool = parsePool(text);
  if (pool === undefined) return;
  if (!subnetContains(subnet, pool.first) || !subnetContains(subnet, pool.last)) {
    refuse("network.netboot.pool", `${text} is not in the subnet of this interface's address`);
  }
  if (subnet.address >= pool.first && subnet.address <= pool.last) {
    refuse("network.netboot.pool", `${text} holds this node's own address`);
  }
}

/** `a-b` with a <= b. */
export function parsePool(text: string): { first: number; last: number } | undefined {
  const [from, to, ...rest] = text.split("-");
  const first = parseIpv4(from?.trim() ?? "");
  const last = parseIpv4(to?.trim() ?? "");
  if (first === undefined || last === undefined || rest.length > 0 || first > last) {
    return undefined;
  }
  return { first, last };
}

function isHost(value: number | undefined): boolean {
  return value !== undefined && value >>> 24 !== 0 && value >>> 24 < 224 && value >>> 24 !== 127;
}

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
