/** What crosses netboot's sockets: its policy, its observations, and the answers of api. */
import { z } from "zod";
import { parseMacAddress, parseUuid } from "#lib/model/ids.ts";
import { isHost, parseIpv4, parseSubnet } from "#lib/wire/dhcp/address.ts";

const ipv4 = z
  .string()
  .refine((text) => parseIpv4(text) !== undefined, "is not an IPv4 address such as 10.0.0.1");
const subnet = z
  .string()
  .refine((text) => parseSubnet(text) !== undefined, "is not a subnet such as 10.0.0.0/24");
const mac = z
  .string()
  .transform((text) => parseMacAddress(text) ?? text)
  .refine((text) => parseMacAddress(text) !== undefined, "is not a MAC address");
const uuid = z
  .string()
  .transform((text) => parseUuid(text) ?? text)
  .refine((text) => parseUuid(text) !== undefined, "is not a UUID");

/** Linux interface name: at most 15 bytes, no slash, no space (dev_valid_name). */
export const interfaceName = z
  .string()
  .regex(/^[^\s/:]{1,15}$/, "is not the name of a network interface");

export const interfacePolicy = z
  .object({
    name: interfaceName,
    /** server: leases and boot; proxy: boot only, beside another DHCP server; off: silence. */
    mode: z.enum(["server", "proxy", "off"]),
    subnet: subnet.optional(),
    /** Inclusive range that leases are given from. */
    pool: z.object({ first: ipv4, last: ipv4 }).optional(),
    router: ipv4.optional(),
    dns: z.array(ipv4).max(8).default([]),
    domain: z
      .string()
      .regex(/^[A-Za-z0-9.-]{1,253}$/)
      .optional(),
    leaseSeconds: z
      .int()
      .min(60)
      .max(30 * 86_400)
      .default(3600),
  })
  .superRefine((value, context) => {
    if (value.mode !== "server") return;
    const net = value.subnet === undefined ? undefined : parseSubnet(value.subnet);
    if (net === undefined) {
      context.addIssue({ code: "custom", path: ["subnet"], message: "is needed in server mode" });
      return;
    }
    if (value.pool !== undefined) {
      const first = parseIpv4(value.pool.first);
      const last = parseIpv4(value.pool.last);
      if (first === undefined || last === undefined) return;
      if (!isHost(net, first) || !isHost(net, last) || first > last) {
        context.addIssue({
          code: "custom",
          path: ["pool"],
          message: `is not an ascending range of host addresses in ${value.subnet}`,
        });
      }
    }
    const router = value.router === undefined ? undefined : parseIpv4(value.router);
    if (router !== undefined && !isHost(net, router)) {
      context.addIssue({
        code: "custom",
        path: ["router"],
        message: `is not in ${value.subnet}`,
      });
    }
  });

/** An address that one machine always gets. */
export const reservation = z.object({
  mac,
  ip: ipv4,
  hostname: z
    .string()
    .regex(/^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/)
    .optional(),
});

export const netbootConfig = z
  .object({
    generation: z.int().min(0),
    interfaces: z.array(interfacePolicy).max(64),
    reservations: z.array(reservation).max(65_536).default([]),
    /** How long the script of a machine that nobody registered asks again before it gives up. */
    unknownWaitSeconds: z.int().min(0).max(86_400).default(300),
  })
  .superRefine((value, context) => {
    const repeated = (key: string, values: readonly string[]) => {
      const seen = new Set<string>();
      for (const item of values) {
        if (seen.has(item)) {
          context.addIssue({ code: "custom", path: [key], message: `names ${item} twice` });
        }
        seen.add(item);
      }
    };
    repeated(
      "interfaces",
      value.interfaces.map((item) => item.name),
    );
    repeated(
      "reservations",
      value.reservations.flatMap((item) => [item.mac, item.ip]),
    );
  });

export type InterfacePolicy = z.infer<typeof interfacePolicy>;
export type Reservation = z.infer<typeof reservation>;
export type NetbootConfig = z.infer<typeof netbootConfig>;

/** Order of a boot: address, loader (TFTP or HTTP), script. `san` and `os` are iscsi-target's. */
export const clientStages = ["dhcp", "loader", "script"] as const;
export type ClientStage = (typeof clientStages)[number];

/** POST /v1/clients/stages on api's internal socket: one observation. */
export const stageReport = z.object({
  stage: z.enum(clientStages),
  mac,
  uuid: uuid.optional(),
  /** PXE client architecture, RFC 4578 section 2.1: 0 BIOS, 7 and 9 UEFI x64, 16 UEFI HTTP x64. */
  arch: z.int().min(0).max(65_535).optional(),
  ip: ipv4.optional(),
  interface: z.string().optional(),
  /** The file loaded, or what the script told the machine to do. */
  detail: z.string().optional(),
  /** RFC 3339, the wall clock of this node. */
  at: z.iso.datetime(),
});
export type StageReport = z.infer<typeof stageReport>;

/** POST /v1/boot on api's internal socket. */
export const bootRequest = z.object({
  mac,
  uuid: uuid.optional(),
  arch: z.int().min(0).max(65_535).optional(),
  ip: ipv4,
});
export type BootRequest = z.infer<typeof bootRequest>;

/**
 * Names in a script: RFC 7143 section 4.2.7.1 leaves letters, digits, `.`, `-` and `:` after
 * normalisation; anything else could be read as iPXE syntax and is refused.
 */
const iqn = z.string().regex(/^iqn\.[a-z0-9.:-]{1,219}$/, "is not a normalised iSCSI name");

/** What api answers to POST /v1/boot. */
export const bootAnswer = z.discriminatedUnion("action", [
  z.object({
    action: z.literal("san"),
    /** `10.0.0.1` or `10.0.0.1:3260`. A host of 0.0.0.0 means the address the client reached. */
    portal: z.string().regex(/^\d+\.\d+\.\d+\.\d+(:\d{1,5})?$/, "is not ADDRESS or ADDRESS:PORT"),
    iqn,
    lun: z.int().min(0).max(16_383),
    initiatorIqn: iqn,
    chap: z
      .object({ user: z.string().min(1).max(255), secret: z.string().min(1).max(255) })
      .optional(),
  }),
  z.object({ action: z.literal("unknown"), message: z.string().max(1000) }),
  z.object({ action: z.literal("error"), message: z.string().max(1000) }),
  z.object({ action: z.literal("local") }),
]);
export type BootAnswer = z.infer<typeof bootAnswer>;

/** GET /v1/clients: every machine seen since start, the latest first. Observed, disposable. */
export interface ClientView {
  readonly mac: string;
  readonly uuid?: string;
  readonly arch?: number;
  readonly ip?: string;
  readonly interface?: string;
  /** The latest stage, and when each was last reached (RFC 3339). */
  readonly stage: ClientStage;
  readonly at: string;
  readonly stages: Partial<Record<ClientStage, string>>;
  /** Last boot answer: san, unknown, error, local; absent before a script was asked for. */
  readonly action?: string;
  readonly detail?: string;
}

/** GET /v1/leases */
export interface LeaseView {
  readonly ip: string;
  readonly mac: string;
  readonly clientId: string;
  readonly hostname?: string;
  readonly interface: string;
  readonly state: "offered" | "bound" | "declined";
  readonly reserved: boolean;
  /** RFC 3339. */
  readonly expiresAt: string;
}

export interface InterfaceView {
  readonly name: string;
  readonly mode: "server" | "proxy" | "off";
  /** This node's address there; absent while it has none. */
  readonly address?: string;
  /** Why it does not serve, or serves less than asked; absent when all is well. */
  readonly problem?: string;
  readonly poolSize: number;
  readonly leased: number;
}

/** GET /v1/status */
export interface NetbootStatus {
  readonly version: string;
  readonly generation: number;
  readonly interfaces: InterfaceView[];
  readonly tftp: { readonly port: number; readonly sessions: number } | null;
  readonly http: { readonly host: string; readonly port: number } | null;
  readonly loaders: { readonly name: string; readonly sizeBytes: number }[];
  /** Loaders that some client architecture needs and `--loaders` lacks. */
  readonly missingLoaders: string[];
  /** What was received, answered and dropped, by reason. Names are stable. */
  readonly counters: Record<string, number>;
}
