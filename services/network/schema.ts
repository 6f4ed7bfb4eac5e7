/** What crosses `<run>/api.sock`. The configuration itself is lib/network's. */
import { z } from "zod";
import type { Problem } from "#lib/network/check.ts";
import type { Difference } from "#lib/network/differences.ts";
import type { OpenPort } from "#lib/network/firewall.ts";
import type { LinkState } from "#lib/network/links.ts";
import type { NetworkRole } from "#lib/network/resolve.ts";
import type { NetworkConfig } from "#lib/network/schema.ts";

/** How long a change may wait for its confirmation. */
export const confirmSeconds = { min: 10, default: 60, max: 900 } as const;

export const applyRequest = z.strictObject({
  /** Looked at by `checkNetworkConfig`, whose messages have paths of their own. */
  config: z.unknown(),
  confirmWithinSeconds: z
    .int({ error: "must be a whole number of seconds" })
    .min(confirmSeconds.min, { error: `must be at least ${confirmSeconds.min}` })
    .max(confirmSeconds.max, { error: `must be at most ${confirmSeconds.max}` })
    .default(confirmSeconds.default),
});

/** Which change: nobody confirms another one than they saw. */
export const changeRequest = z.strictObject({ id: z.string().min(1).max(64) });

export interface PendingChange {
  readonly id: string;
  readonly config: NetworkConfig;
  /** The machine has it; before that it can't be confirmed. */
  readonly applied: boolean;
  /** What is left until it reverts itself. */
  readonly secondsLeft: number;
}

export interface PastChange {
  readonly id: string;
  readonly outcome: "confirmed" | "reverted";
  /** ISO 8601. */
  readonly at: string;
  /** A sentence. */
  readonly reason: string;
}

/** GET /v1/network */
export interface NetworkView {
  /** What boots. */
  readonly config: NetworkConfig;
  readonly pending: PendingChange | null;
  readonly lastChange: PastChange | null;
  /** Interface of each network that is set up. */
  readonly roles: Partial<Readonly<Record<NetworkRole, string>>>;
  readonly links: readonly LinkState[];
  /** Ports that are missing, and a backplane that overlaps with what DHCP gave the LAN. */
  readonly problems: readonly Problem[];
  readonly differences: readonly Difference[];
  readonly firewall: FirewallState;
  /** Services still use what the node started with; a sentence that says which. */
  readonly restartNeeded: string | null;
}

export interface FirewallState {
  readonly active: boolean;
  /** Why it is not. */
  readonly failure: string | null;
}

/** GET /v1/firewall */
export interface FirewallView extends FirewallState {
  readonly open: readonly OpenPort[];
  /** What nft was given. */
  readonly rules: string;
}
