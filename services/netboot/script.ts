/**
 * iPXE scripts. Whatever comes from outside goes in by one of three doors, since iPXE has no
 * quotes: names of a checked alphabet as they are, secrets as hex settings, text for people with
 * every character that iPXE could read as syntax replaced.
 */
import type { BootAnswer } from "#services/api/boot-schema.ts";

export interface ScriptContext {
  readonly mac: string;
  readonly uuid?: string | undefined;
  readonly ip: string;
  /** This node's address that the client reached. */
  readonly local: string;
  /** `http://ADDRESS[:PORT]` under which the client reached us. */
  readonly base: string;
  /** The query to ask again with, without `attempt`. */
  readonly query: string;
  /** How often this boot has asked before: 0 at first. */
  readonly attempt: number;
  readonly unknownWaitSeconds: number;
}

export const scriptType = "text/plain; charset=us-ascii";

/** Seconds to wait before asking for the nth time. */
export function pauseSeconds(attempt: number): number {
  return Math.min(5 * 2 ** Math.min(attempt, 10), 30);
}

const safeName = /^[a-z0-9.:-]{1,223}$/;
const columns = 74;

/** Text for the client's console, as `echo` lines. */
export function echo(text: string): string[] {
  const plain = text
    .replaceAll(/\s+/g, " ")
    .replaceAll(/[^A-Za-z0-9 .,:/()'_@+=!?%-]/g, "?")
    .trim();
  const lines: string[] = [];
  let line = "";
  for (const word of plain.split(" ")) {
    for (const piece of word.match(new RegExp(`.{1,${columns}}`, "g")) ?? []) {
      if (line !== "" && line.length + 1 + piece.length > columns) {
        lines.push(line);
        line = "";
      }
      line = line === "" ? piece : `${line} ${piece}`;
    }
  }
  if (line !== "") lines.push(line);
  // A word that begins with `-` would be read as an option of echo, so each line has a margin.
  return lines.map((text) => `echo | ${text}`);
}

/** Bytes of `text` (UTF-8) as the value of a `:hex` setting. */
function hex(text: string): string {
  return Buffer.from(text, "utf8")
    .toString("hex")
    .replaceAll(/(..)(?=.)/g, "$1:");
}

function again(context: ScriptContext, pause: number): string[] {
  return [
    `sleep ${pause}`,
    `chain --replace --autofree ${context.base}/boot.ipxe?${context.query}&attempt=${context.attempt + 1} ||`,
    // The server itself is gone: begin anew from DHCP, after a pause.
    "echo | The boot server does not answer.",
    "sleep 15",
    "reboot",
  ];
}

function script(lines: readonly string[]): string {
  return `${["#!ipxe", ...lines].join("\n")}\n`;
}

/** The script that carries out api's answer. */
export function scriptFor(answer: BootAnswer, context: ScriptContext): string {
  switch (answer.action) {
    case "san":
      return safeName.test(answer.iqn) && safeName.test(answer.initiatorIqn)
        ? sanScript(answer, context)
        : waitScript("Its boot entry has an iSCSI name that iPXE cannot take.", context);
    case "unknown":
      return unknownScript(answer.message, context);
    case "error":
      return waitScript(answer.message, context);
  }
}

/** `ADDRESS:PORT` with both given; an address of zeros is the one the client reached us on. */
function portalOf(text: string, local: string): { address: string; port: string } {
  const [address, port = "3260"] = text.split(":");
  return { address: address === "0.0.0.0" ? local : address, port };
}

function sanScript(answer: BootAnswer & { action: "san" }, context: ScriptContext): string {
  const { address, port } = portalOf(answer.portal, context.local);
  const pause = pauseSeconds(context.attempt);
  return script([
    ...echo(`Keelson: booting ${context.mac} from ${address}:${port}, ${answer.iqn}`),
    `set initiator-iqn ${answer.initiatorIqn}`,
    `set username:hex ${hex(answer.chap.user)}`,
    `set password:hex ${hex(answer.chap.secret)}`,
    `sanboot iscsi:${address}::${port}:${answer.lun.toString(16)}:${answer.iqn} ||`,
    "clear password",
    ...echo(`Keelson: ${address}:${port} gave no disk to boot from.`),
    ...echo(`Asking again in ${pause} seconds.`),
    ...again(context, pause),
  ]);
}

/** A machine that no boot entry names: says who it is, waits to be registered, then gives up. */
function unknownScript(message: string, context: ScriptContext): string {
  const about = [
    "echo",
    ...echo("Keelson does not know this machine, so it does not boot it."),
    ...echo(`MAC address: ${context.mac}`),
    ...(context.uuid === undefined ? [] : echo(`UUID:        ${context.uuid}`)),
    ...echo(`Address:     ${context.ip}`),
    ...echo(message),
    ...echo(`To boot it: keelson boot add NAME --mac ${context.mac} --image IMAGE`),
  ];
  const pause = 15;
  if (context.attempt * pause >= context.unknownWaitSeconds) {
    return script([...about, ...echo("Going on to the next boot device."), "sleep 3", "exit 1"]);
  }
  return script([...about, ...echo(`Asking again in ${pause} seconds.`), ...again(context, pause)]);
}

/** It can't boot now: says why, and asks again later. */
export function waitScript(message: string, context: ScriptContext): string {
  const pause = Math.max(pauseSeconds(context.attempt), 10);
  return script([
    "echo",
    ...echo(`Keelson cannot boot this machine (${context.mac}) yet.`),
    ...echo(message),
    ...echo(`Asking again in ${pause} seconds.`),
    ...again(context, pause),
  ]);
}
