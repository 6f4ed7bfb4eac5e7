/**
 * nmap on a segment: a network namespace of its own whose one port is a tap that QEMU, without a
 * guest, joins to the segment's hub.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { promisify } from "node:util";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Segment } from "./segment.ts";

const run = promisify(execFile);

export interface ScannerOptions {
  readonly segment: Segment;
  /** With its prefix length, such as `10.99.0.8/24`. */
  readonly address: string;
}

/** Every one of the 65,535 TCP ports, by what nmap found. */
export interface ScannedPorts {
  readonly open: readonly number[];
  readonly filtered: readonly number[];
  readonly closedCount: number;
}

/**
 * Scans all TCP ports of `target` by SYN. UNAVAILABLE if nmap or QEMU is missing or fails, INTERNAL
 * if the target did not answer at all.
 */
export async function scanTcp(options: ScannerOptions, target: string): Promise<ScannedPorts> {
  const name = `keelson-nmap-${process.pid}`;
  await program("ip", ["netns", "add", name]);
  let bridge: ChildProcess | undefined;
  try {
    const inside = (command: string, ...args: string[]) =>
      program("ip", ["netns", "exec", name, command, ...args]);
    await inside("ip", "tuntap", "add", "dev", "port", "mode", "tap");
    bridge = joinHub(name, options.segment);
    await inside("ip", "link", "set", "port", "up");
    await inside("ip", "address", "add", options.address, "dev", "port");
    return read(
      await inside("nmap", "-n", "-Pn", "-sS", "-p", "1-65535", "-T4", "-oX", "-", target),
    );
  } finally {
    if (bridge !== undefined && bridge.exitCode === null && bridge.signalCode === null) {
      const gone = new Promise((resolve) => bridge!.once("close", resolve));
      bridge.kill("SIGKILL");
      await gone;
    }
    await program("ip", ["netns", "del", name]);
  }
}

function joinHub(namespace: string, segment: Segment): ChildProcess {
  return spawn(
    "ip",
    [
      ...["netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL"],
      ...["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none"],
      ...["-netdev", segment.netdev("hub"), "-netdev", "hubport,id=a,hubid=0,netdev=hub"],
      ...["-netdev", "tap,id=tap,ifname=port,script=no,downscript=no"],
      ...["-netdev", "hubport,id=b,hubid=0,netdev=tap"],
    ],
    { stdio: "ignore" },
  );
}

/** nmap's XML: groups of ports in one state, and ports by themselves. */
function read(xml: string): ScannedPorts {
  const ports = [...xml.matchAll(/<port protocol="tcp" portid="(\d+)"><state state="([\w|]+)"/g)];
  const having = (state: string) =>
    ports.filter(([, , each]) => each === state).map(([, port]) => Number(port));
  const groups = [...xml.matchAll(/<extraports state="([\w|]+)" count="(\d+)"/g)];
  const count = (state: string) =>
    groups.filter(([, each]) => each === state).reduce((sum, [, , each]) => sum + Number(each), 0);
  const closedCount = having("closed").length + count("closed");
  if (closedCount + having("open").length === 0) {
    throw new KeelsonError("INTERNAL", `nmap found nothing that answers: ${xml.slice(-1500)}`);
  }
  if (count("filtered") > 0) {
    throw new KeelsonError("INTERNAL", `${count("filtered")} ports don't answer nmap.`);
  }
  return { open: having("open"), filtered: having("filtered"), closedCount };
}

async function program(command: string, args: readonly string[]): Promise<string> {
  try {
    return (await run(command, [...args], { maxBuffer: 1 << 26 })).stdout;
  } catch (cause) {
    const said = (cause as { stderr?: string }).stderr?.trim() ?? "";
    throw new KeelsonError("UNAVAILABLE", `${command} ${args.join(" ")} failed: ${said}`, {
      cause,
      remedy: "It needs root, and Debian's packages nmap and qemu-system-x86.",
    });
  }
}
