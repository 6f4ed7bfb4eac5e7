/** The networks as they stand in the form: text, as typed. Pure. */
import type { Network, NetworkApply } from "../../../services/api/network-schema.ts";

export type NetworkConfig = Network["config"];
type ConfigInput = NetworkApply["config"];

export interface BondDraft {
  readonly name: string;
  readonly ports: readonly string[];
  readonly primary: string;
}

interface Common {
  readonly interface: string;
  readonly vlan: string;
  readonly address: string;
  readonly mtu: string;
}

export interface NetworkDraft {
  readonly bonds: readonly BondDraft[];
  readonly lan: Common & {
    readonly dhcp: boolean;
    readonly gateway: string;
    readonly dns: string;
  };
  /** Kept while it is off, so that a wrong click loses nothing. */
  readonly backplane: Common & { readonly on: boolean };
}

const text = (value: number | undefined) => (value === undefined ? "" : String(value));

export function draftOf({ bonds, lan, backplane }: NetworkConfig): NetworkDraft {
  return {
    bonds: bonds.map(({ name, ports, primary }) => ({ name, ports, primary: primary ?? "" })),
    lan: {
      interface: lan.interface,
      vlan: text(lan.vlan),
      dhcp: lan.address === "dhcp",
      address: lan.address === "dhcp" ? "" : lan.address,
      gateway: lan.gateway ?? "",
      dns: lan.dns.join(" "),
      mtu: text(lan.mtu),
    },
    backplane: {
      on: backplane !== undefined,
      interface: backplane?.interface ?? "lan",
      vlan: text(backplane?.vlan),
      address: backplane?.address ?? "",
      mtu: text(backplane?.mtu),
    },
  };
}

/** A number as typed; what is none goes as it is, for api to say what is wrong with it. */
function numberField<Name extends string>(name: Name, typed: string) {
  const value = typed.trim();
  return value === "" ? {} : { [name]: /^\d+$/.test(value) ? Number(value) : value };
}

function textField<Name extends string>(name: Name, typed: string) {
  return typed.trim() === "" ? {} : { [name]: typed.trim() };
}

/** What api is given; network boot stays as it is, and so does how often bonds look at their links. */
export function configOf(draft: NetworkDraft, saved: NetworkConfig): ConfigInput {
  const { lan, backplane } = draft;
  const config = {
    bonds: draft.bonds.map(({ name, ports, primary }) => ({
      ...saved.bonds.find((bond) => bond.name === name.trim()),
      name: name.trim(),
      ports: [...ports],
      primary: primary === "" ? undefined : primary,
    })),
    lan: {
      interface: lan.interface,
      address: lan.dhcp ? "dhcp" : lan.address.trim(),
      dns: lan.dns.split(/[\s,]+/).filter(Boolean),
      ...numberField("vlan", lan.vlan),
      ...(lan.dhcp ? {} : textField("gateway", lan.gateway)),
      ...numberField("mtu", lan.mtu),
    },
    ...(backplane.on
      ? {
          backplane: {
            interface: backplane.interface,
            address: backplane.address.trim(),
            ...numberField("vlan", backplane.vlan),
            ...numberField("mtu", backplane.mtu),
          },
        }
      : {}),
    ...(saved.netboot === undefined ? {} : { netboot: saved.netboot }),
  };
  return config as ConfigInput;
}

/** `bond0`, or the first number that is free. */
export function freeBondName(bonds: readonly BondDraft[]): string {
  let number = 0;
  while (bonds.some(({ name }) => name === `bond${number}`)) number++;
  return `bond${number}`;
}
