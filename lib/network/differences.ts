/** How the machine's links differ from what is configured, in sentences for people. Pure. */
import { sameSelector } from "./check.ts";
import type { LinkState } from "./links.ts";
import { type BaseLink, networkRoles, type ResolvedNetwork } from "./resolve.ts";
import type { NetworkConfig } from "./schema.ts";

export interface Difference {
  /** Interface it is about. */
  readonly link: string;
  /** `down`: no cable; `degraded`: a bond with less than all; `differs`: not as configured. */
  readonly kind: "down" | "degraded" | "differs";
  readonly message: string;
}

export function networkDifferences(
  config: NetworkConfig,
  resolved: ResolvedNetwork,
  links: readonly LinkState[],
): Difference[] {
  const find = (name: string) => links.find((link) => link.name === name);
  const found: Difference[] = [];
  const differs = (link: string, message: string) => found.push({ link, kind: "differs", message });
  for (const base of resolved.links) {
    const live = find(base.name);
    if (live === undefined) {
      differs(base.name, `${base.name} is not there.`);
      continue;
    }
    found.push(...baseDifferences(base, live, find));
    for (const { name, vlan, mtu } of base.tagged) {
      const tagged = find(name);
      if (tagged === undefined) differs(name, `VLAN ${vlan} on ${base.name} is not there.`);
      else if (tagged.vlan?.id !== vlan || tagged.vlan.parent !== base.name) {
        const { id, parent } = tagged.vlan ?? { id: "none", parent: "nothing" };
        differs(name, `${name} is VLAN ${id} on ${parent}, not ${vlan} on ${base.name}.`);
      } else if (tagged.mtu !== mtu) {
        differs(name, `The MTU of ${name} is ${tagged.mtu}, not ${mtu}.`);
      }
    }
  }
  for (const role of networkRoles) {
    const name = resolved.roles[role];
    const wanted = config[role]?.address;
    const live = find(name ?? "");
    if (name === undefined || wanted === undefined || live === undefined) continue;
    const has = live.addresses.map(({ address }) => address);
    if (wanted === "dhcp") {
      if (has.length === 0 && live.carrier) differs(name, `DHCP gave ${name} no address yet.`);
    } else if (!has.includes(wanted)) {
      differs(name, `${name} has ${has.join(", ") || "no address"}, not ${wanted}.`);
    }
  }
  return found;
}

function baseDifferences(
  base: BaseLink,
  live: LinkState,
  find: (name: string) => LinkState | undefined,
): Difference[] {
  const { name, bond } = base;
  const found: Difference[] = [];
  if (!live.carrier) {
    const why = bond === undefined ? "Is its cable in?" : "None of its ports has a link.";
    found.push({ link: name, kind: "down", message: `${name} has no link. ${why}` });
  }
  if (live.mtu !== base.mtu) {
    const message = `The MTU of ${name} is ${live.mtu}, not ${base.mtu}.`;
    found.push({ link: name, kind: "differs", message });
  }
  if (bond === undefined) return found;
  for (const port of bond.ports) {
    const state = find(port.name);
    if (state?.master !== name) {
      const message = `${port.name} is not a port of ${name}.`;
      found.push({ link: name, kind: "degraded", message });
    } else if (!state.carrier) {
      const message = `${port.name}, a port of ${name}, has no link.`;
      found.push({ link: name, kind: "degraded", message });
    }
  }
  const active = live.bond?.activePort;
  const primary = find(bond.primary.name);
  if (active !== undefined && !sameSelector(active, bond.primary.name) && primary?.carrier) {
    const message = `${name} runs on ${active}, though its primary port ${bond.primary.name} has a link.`;
    found.push({ link: name, kind: "differs", message });
  }
  return found;
}
