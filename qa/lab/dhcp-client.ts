/** DHCP clients of the lab: isc-dhclient, and hand-made messages for what it never sends. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseMacAddress } from "#lib/model/ids.ts";
import { type Ipv4, macBytes, parseIpv4 } from "#lib/wire/dhcp/address.ts";
import {
  bootRequest,
  type DhcpMessage,
  decodeMessage,
  encodeMessage,
  messageType,
} from "#lib/wire/dhcp/message.ts";
import { uint8, uint32 } from "#lib/wire/dhcp/options.ts";
import type { DatagramResult, DatagramRun } from "./datagrams.ts";
import type { Lab, Namespace } from "./lab.ts";
import type { Program } from "./program.ts";

export interface Dhclient {
  readonly program: Program;
  /** What dhclient told its script for `reason`: `new_ip_address` and so on. */
  environment(reason: string): Record<string, string>;
  readonly leaseFile: string;
  readonly pidFile: string;
}

/** Starts isc-dhclient in the foreground; its script sets the address as a system would. */
export function dhclient(
  lab: Lab,
  host: Namespace,
  options: {
    readonly leaseFile?: string;
    readonly pidFile?: string;
    readonly args?: readonly string[];
  } = {},
): Dhclient {
  const folder = lab.directory("dhclient");
  const script = join(folder, "script");
  writeFileSync(
    script,
    `#!/bin/sh
env | grep -E '^(reason|new_|old_)' > ${folder}/$reason
case $reason in
  PREINIT) ip link set dev $interface up ;;
  BOUND|RENEW|REBIND|REBOOT) ip addr replace $new_ip_address/24 dev $interface ;;
  RELEASE|EXPIRE|STOP) ip addr flush dev $interface ;;
esac
echo "script: $reason $new_ip_address" >&2
`,
    { mode: 0o755 },
  );
  const leaseFile = options.leaseFile ?? join(folder, "leases");
  const pidFile = options.pidFile ?? join(folder, "pid");
  const program = host.spawn("dhclient", [
    "-d",
    ...["-cf", "/dev/null", "-lf", leaseFile, "-pf", pidFile, "-sf", script],
    ...(options.args ?? []),
    "eth0",
  ]);
  return {
    program,
    leaseFile,
    pidFile,
    environment: (reason) =>
      Object.fromEntries(
        readFileSync(join(folder, reason), "utf8")
          .trim()
          .split("\n")
          .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
      ),
  };
}

export interface Message {
  readonly type: keyof typeof messageType;
  readonly mac: string;
  readonly ciaddr?: string;
  readonly giaddr?: string;
  readonly flags?: number;
  readonly options?: readonly (readonly [number, Uint8Array])[];
}

export function address(text: string): Ipv4 {
  const ip = parseIpv4(text);
  if (ip === undefined) throw new Error(`${text} is not an IPv4 address`);
  return ip;
}

export function ip4(text: string): Uint8Array {
  return uint32(address(text));
}

let transaction = 0x4b4c0000;

/** A client's message as bytes. */
export function clientMessage(message: Message): Uint8Array {
  const chaddr = new Uint8Array(16);
  chaddr.set(macBytes(parseMacAddress(message.mac)!));
  return encodeMessage({
    op: bootRequest,
    htype: 1,
    hlen: 6,
    hops: message.giaddr === undefined ? 0 : 1,
    xid: transaction++,
    secs: 0,
    flags: message.flags ?? 0,
    ciaddr: address(message.ciaddr ?? "0.0.0.0"),
    yiaddr: address("0.0.0.0"),
    siaddr: address("0.0.0.0"),
    giaddr: address(message.giaddr ?? "0.0.0.0"),
    chaddr,
    sname: "",
    file: "",
    options: new Map([[53, uint8(messageType[message.type])], ...(message.options ?? [])]),
  });
}

/** Sends datagrams from inside `host` and gives the replies. */
export async function exchange(host: Namespace, run: DatagramRun): Promise<DatagramResult> {
  const { stdout } = await host.run(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", join(import.meta.dirname, "datagrams.ts")],
    { input: JSON.stringify(run) },
  );
  return JSON.parse(stdout) as DatagramResult;
}

/** Broadcasts one message from port 68 and gives the first reply, or undefined after `waitMs`. */
export async function ask(
  host: Namespace,
  message: Message,
  options: {
    readonly to?: string;
    readonly toPort?: number;
    readonly port?: number;
    readonly waitMs?: number;
  } = {},
): Promise<DhcpMessage | undefined> {
  const { replies } = await exchange(host, {
    port: options.port ?? 68,
    interface: "eth0",
    send: [
      {
        hex: Buffer.from(clientMessage(message)).toString("hex"),
        to: options.to ?? "255.255.255.255",
        port: options.toPort ?? 67,
      },
    ],
    replies: 1,
    waitMs: options.waitMs ?? 3000,
  });
  if (replies.length === 0) return undefined;
  const decoded = decodeMessage(Buffer.from(replies[0].hex, "hex"));
  if ("malformed" in decoded) throw new Error(`the reply is malformed: ${decoded.malformed}`);
  return decoded.message;
}
