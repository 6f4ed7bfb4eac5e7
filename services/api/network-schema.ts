/**
 * The node's own networks:
 *
 *   GET  /network           -> Network                [network:read]
 *   POST /network/apply     NetworkApply -> 202 {id}  [network:write]  changes 0.3 s after the answer
 *   POST /network/confirm   NetworkChangeId -> 204    [network:write]  within the given seconds, or
 *   POST /network/revert    NetworkChangeId -> 204    [network:write]  it takes itself back
 *   GET  /network/firewall  -> Firewall               [network:read]
 *
 * What a configuration may say, and every message about it, is lib/network's.
 */
import { z } from "zod";
import { networkConfig, networkShape } from "#lib/network/schema.ts";

const role = z.enum(["lan", "backplane", "netboot"]);

const linkSchema = z.object({
  name: z.string(),
  /** `port`: hardware; else `bond`, `vlan`. */
  kind: z.string(),
  mac: z.string(),
  permanentMac: z.string(),
  up: z.boolean(),
  /** A cable with something at its other end. */
  carrier: z.boolean(),
  speedMbps: z.int().optional(),
  mtu: z.int(),
  mtuMax: z.int().optional(),
  addresses: z.array(z.object({ address: z.string(), dynamic: z.boolean() })),
  bond: z
    .object({
      mode: z.string(),
      /** Absent: no port has a link. */
      activePort: z.string().optional(),
      primary: z.string().optional(),
      miimonMs: z.int(),
    })
    .optional(),
  vlan: z.object({ id: z.int(), parent: z.string() }).optional(),
  /** Bond that has it as a port. */
  master: z.string().optional(),
});

/** A place in the configuration, such as `lan.mtu`, and what is wrong there. */
const problem = z.object({ path: z.string(), message: z.string() });

export const networkSchema = z
  .object({
    /** What boots. */
    config: networkShape,
    pending: z
      .object({
        id: z.string(),
        config: networkShape,
        /** The node has it; before that it can't be confirmed. */
        applied: z.boolean(),
        secondsLeft: z.int(),
      })
      .nullable(),
    lastChange: z
      .object({
        id: z.string(),
        outcome: z.enum(["confirmed", "reverted"]),
        at: z.string(),
        reason: z.string(),
      })
      .nullable(),
    /** Interface of each network that is set up. */
    roles: z.partialRecord(role, z.string()),
    links: z.array(linkSchema),
    problems: z.array(problem),
    differences: z.array(
      z.object({
        link: z.string(),
        kind: z.enum(["down", "degraded", "differs"]),
        message: z.string(),
      }),
    ),
    firewall: z.object({ active: z.boolean(), failure: z.string().nullable() }),
    restartNeeded: z.string().nullable(),
  })
  .meta({ id: "Network" });

export const networkApplySchema = z
  .strictObject({
    config: networkConfig,
    confirmWithinSeconds: z.int().min(10).max(900).default(60),
  })
  .meta({ id: "NetworkApply" });

export const networkChangeIdSchema = z
  .strictObject({ id: z.string().min(1).max(64) })
  .meta({ id: "NetworkChangeId" });

export const firewallSchema = z
  .object({
    active: z.boolean(),
    failure: z.string().nullable(),
    open: z.array(
      z.object({
        service: z.string(),
        protocol: z.enum(["tcp", "udp"]),
        port: z.int(),
        why: z.string(),
        /** Null: on all; none: this node has no such network. */
        interfaces: z.array(z.string()).nullable(),
        networks: z.array(z.string()),
        newPerSecond: z.int().nullable(),
      }),
    ),
    /** As nft takes them. */
    rules: z.string(),
  })
  .meta({ id: "Firewall" });

export type Network = z.infer<typeof networkSchema>;
export type NetworkApply = z.input<typeof networkApplySchema>;
export type Firewall = z.infer<typeof firewallSchema>;
