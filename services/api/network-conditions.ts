/** Faults of the node's own networks, judged from what keelson-network says. */
import { type Checked, read } from "#lib/aime/checked.ts";
import type { Finding, Severity } from "#lib/aime/condition.ts";
import type { NetworkView } from "#services/network/schema.ts";

export const networkTitles = {
  NETWORK_BOND_DEGRADED: "A bond runs on fewer ports than it has",
  NETWORK_LINK_DOWN: "A network has no link",
  NETWORK_DIFFERS: "The network is not as configured",
  NETWORK_PORT_MISSING: "A port that the networks name is not there",
  NETWORK_BACKPLANE_OVERLAP: "The backplane overlaps with the LAN",
  NETWORK_CHANGE_WAITING: "A change of the network waits for confirmation",
  NETWORK_RESTART_NEEDED: "A change of the network waits for a restart",
  FIREWALL_INACTIVE: "The firewall is not loaded",
} as const;
export type NetworkConditionCode = keyof typeof networkTitles;

interface NetworkJudgement {
  readonly code: NetworkConditionCode;
  readonly subject: string | null;
  readonly finding: Finding;
}

/** One per interface where there are several; none while nothing is known: the service's is. */
export function networkFaults(
  observed: Checked<NetworkView> | null,
  nowMs: number,
): NetworkJudgement[] {
  if (observed === null) return [];
  const reading = read(observed, nowMs);
  if (!reading.known) return [];
  const { links, roles, problems, differences, pending, firewall, restartNeeded } = reading.value;
  const fault = (severity: Severity, reason: string, remedy: string): Finding => ({
    ...{ status: "true", severity, reason, remedy },
  });
  const single = (
    code: NetworkConditionCode,
    severity: Severity,
    reasons: readonly string[],
    remedy: string,
    calm: string,
  ): NetworkJudgement => ({
    code,
    subject: null,
    finding:
      reasons.length > 0
        ? fault(severity, reasons.join(" "), remedy)
        : { status: "false", severity, reason: calm, remedy: null },
  });
  const about = (kind: "down" | "degraded" | "differs", link?: string) =>
    differences
      .filter((each) => each.kind === kind && (link === undefined || each.link === link))
      .map(({ message }) => message);
  const perLink = [
    ...new Set([
      ...Object.values(roles).filter((name) => name !== undefined),
      ...links.filter(({ kind }) => kind === "bond").map(({ name }) => name),
    ]),
  ];
  const overlap = problems.filter(({ path }) => path === "backplane.address");
  const missing = problems.filter((problem) => !overlap.includes(problem));
  return [
    ...perLink.map((name): NetworkJudgement => {
      const reasons = about("down", name);
      return {
        ...single(
          "NETWORK_LINK_DOWN",
          name === roles.lan ? "critical" : "warning",
          reasons,
          "Check the cable and the switch's port.",
          "It has a link.",
        ),
        subject: name,
      };
    }),
    ...links
      .filter(({ kind }) => kind === "bond")
      .map(({ name }) => ({
        ...single(
          "NETWORK_BOND_DEGRADED",
          "warning",
          about("degraded", name),
          "Check this port's cable and the switch: another fault would cut the network off.",
          "All its ports have a link.",
        ),
        subject: name,
      })),
    single(
      "NETWORK_DIFFERS",
      "warning",
      about("differs"),
      "See keelson network show; journalctl -u systemd-networkd says more.",
      "Every link is as configured.",
    ),
    single(
      "NETWORK_PORT_MISSING",
      "warning",
      missing.map(({ message }) => message),
      "Put the card back, or name another port.",
      "All ports are there.",
    ),
    single(
      "NETWORK_BACKPLANE_OVERLAP",
      "critical",
      overlap.map(({ path, message }) => `${path}: ${message}`),
      "Give the backplane another subnet, or have the LAN's DHCP server give other addresses.",
      "They have subnets of their own.",
    ),
    single(
      "NETWORK_CHANGE_WAITING",
      "notice",
      // Without the seconds: the text would change with each look.
      pending === null ? [] : ["It takes itself back unless it is confirmed."],
      "Confirm it with keelson network confirm, or take it back.",
      "Nothing waits.",
    ),
    single(
      "NETWORK_RESTART_NEEDED",
      "notice",
      restartNeeded === null ? [] : [restartNeeded],
      "Restart the node when its clients can spare it.",
      "Every service uses the present networks.",
    ),
    single(
      "FIREWALL_INACTIVE",
      "critical",
      firewall.active ? [] : [`${firewall.failure ?? "It gave no reason."}`],
      "Report it with the support bundle; until then every port that listens is open.",
      "Only what services declare is open.",
    ),
  ];
}
