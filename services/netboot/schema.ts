/**
 * What crosses `<run>/api.sock`: the policy that api puts and what was observed. What netboot asks
 * of api (boot answers, stage reports) is in services/api/schema.ts.
 */
import { z } from "zod";
import { parseMacAddress } from "#lib/model/ids.ts";
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
/** Linux interface name: at most 15 bytes, no slash, no space (dev_valid_name). */
export const interfaceName = z
  .string()
  .regex(/^[^\s/:]{1,15}$/, "is not the name of a network interface");

const scopeFields = {
  /** Inclusive range that leases are given from; without one only reservations are served. */
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
};

interface ScopeText {
  readonly subnet?: string | undefined;
  readonly pool?: { readonly first: string; readonly last: string } | undefined;
  readonly router?: string | undefined;
}

/** The pool and the router must be hosts of the subnet. */
function checkScope(value: ScopeText, context: z.RefinementCtx): void {
  const net = parseSubnet(value.subnet ?? "");
  const fault = (path: string, message: string) =>
    context.addIssue({ code: "custom", path: [path], message });
  if (net === undefined) return;
  const first = parseIpv4(value.pool?.first ?? "");
  const last = parseIpv4(value.pool?.last ?? "");
  if (first !== undefined && last !== undefined) {
    if (!isHost(net, first) || !isHost(net, last) || first > last) {
      fault("pool", `is not an ascending range of host addresses in ${value.subnet}`);
    }
  }
  const router = parseIpv4(value.router ?? "");
  if (router !== undefined && !isHost(net, router)) {
    fault("router", `is not a host address in ${value.subnet}`);
  }
}

export const interfacePolicy = z
  .object({
    name: interfaceName,
    /** server: leases and boot; proxy: boot only, beside another DHCP server; off: silence. */
    mode: z.enum(["server", "proxy", "off"]),
    subnet: subnet.optional(),
    ...scopeFields,
  })
  .superRefine((value, context) => {
    if (value.mode !== "server") return;
    if (value.subnet === undefined) {
      context.addIssue({ code: "custom", path: ["subnet"], message: "is needed in server mode" });
    }
    checkScope(value, context);
  });

/** A subnet behind a DHCP relay; its router is the relay unless named. */
export const relayedPolicy = z.object({ subnet, ...scopeFields }).superRefine(checkScope);

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
    relayed: z.array(relayedPolicy).max(64).default([]),
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
export type RelayedPolicy = z.infer<typeof relayedPolicy>;
export type Reservation = z.infer<typeof reservation>;
export type NetbootConfig = z.infer<typeof netbootConfig>;

/** Order of a boot: address, loader (TFTP or HTTP), script. `san` and `os` are iscsi-target's. */
export const clientStages = ["dhcp", "loader", "script"] as const;
export type ClientStage = (typeof clientStages)[number];

/** GET /v1/clients: every machine seen since start, the latest first. Observed, disposable. */
export interface ClientView {
  readonly mac: string;
  readonly uuid?: string;
  /** PXE client architecture, RFC 4578 section 2.1: 0 BIOS, 7 and 9 UEFI x64, 16 UEFI HTTP x64. */
  readonly arch?: number;
  readonly ip?: string;
  readonly interface?: string;
  /** The latest stage, and when each was last reached (RFC 3339). */
  readonly stage: ClientStage;
  readonly at: string;
  readonly stages: Partial<Record<ClientStage, string>>;
  /** Last boot answer; absent before a script was asked for. */
  readonly action?: "san" | "unknown" | "error";
  /** The file loaded, or what the script said. */
  readonly detail?: string;
  /** Set when the latest stage went wrong. */
  readonly failure?: string;
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
  /** Other DHCP servers, by the requests that chose them. */
  readonly otherServers: string[];
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
