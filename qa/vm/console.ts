/**
 * Scenario `console`: the setup wizard answered over the serial line at 80x24 and by the keyboard of
 * the screen, its saved answers used for a second node, then the status screen's menus: a network
 * change that reverts itself, password reset, recorded shell, support bundle.
 */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import { Agent, fetch } from "undici";
import { answerFileName, parseAnswerFile } from "#lib/answer-file/answer-file.ts";
import type { AnswersInput } from "#lib/answer-file/schema.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  ApplianceClient,
  type ApplianceOptions,
  createDisk,
  fatal,
  installAppliance,
  limits,
  startAppliance,
  startInstaller,
} from "./appliance.ts";
import { type Disk, type Firmware, freePort, type Machine } from "./machine.ts";
import { readPartitions } from "./partition-table.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";

const diskBytes = 8 * 2 ** 30;
const nodeName = "keelson-console";
const up = "\x1b[A";
const down = "\x1b[B";
const right = "\x1b[C";
const esc = "\x1b";

export const consoleScenario: Scenario = {
  name: "console",
  summary:
    "the wizard and the menus over serial line and screen; its answers install an equal node",
  async run(context) {
    for (const firmware of context.firmwares.slice(0, 1)) await runUnder(firmware, context);
  },
};

async function runUnder(firmware: Firmware, context: ScenarioContext): Promise<void> {
  const { directory, step } = context;
  const password = randomBytes(9).toString("base64url");
  const options: ApplianceOptions = {
    ...{ name: firmware, directory, firmware, disk: join(directory, `${firmware}.disk.raw`) },
    acceleration: context.acceleration.acceleration,
    httpsPort: await freePort(),
    ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
  };
  createDisk(options.disk, diskBytes);
  const stick = join(directory, "stick.img");
  writeStick(stick);
  await runWizard(options, stick, password, context);
  const answers = await step("the stick holds the answers, without the password", async () => {
    const text = mtool("mtype", ["-i", stick, `::${answerFileName}`]);
    if (text.includes(password)) throw new KeelsonError("INTERNAL", "The password is in it.");
    const parsed = parseAnswerFile(text, answerFileName);
    expectThat(parsed.node.name === nodeName, `it names the node ${parsed.node.name}`);
    writeFileSync(join(directory, answerFileName), text);
    return JSON.parse(text.replace(/^\/\/.*$/m, "")) as AnswersInput;
  });
  await runMenus(options, password, context);
  await step("the saved answers install an equal node, unattended", async () => {
    const second = { ...options, name: "second", disk: join(directory, "second.disk.raw") };
    createDisk(second.disk, diskBytes);
    await installAppliance({ ...second, iso: context.iso }, { ...answers, after: "poweroff" });
    const [one, two] = [options.disk, second.disk].map(nodeConfiguration);
    expectThat(one === two, `its configuration is another one:\n${one}\n${two}`);
  });
}

/** A terminal's user: types, and reads the page. */
class Operator {
  readonly machine: Machine;
  readonly #context: ScenarioContext;

  constructor(machine: Machine, context: ScenarioContext) {
    this.machine = machine;
    this.#context = context;
  }

  async see(pattern: RegExp, timeoutMs = 240_000): Promise<RegExpExecArray> {
    return this.machine.serial.waitFor(pattern, timeoutMs, { fail: fatal });
  }

  /** Types and waits for what comes of it. */
  async type(text: string, pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray> {
    this.machine.type(text);
    return this.see(pattern, timeoutMs);
  }

  /** Down, a key at a time, until the row or button that has the focus fits. */
  async moveTo(pattern: RegExp): Promise<void> {
    for (let presses = 0; presses < 30; presses++) {
      const row = this.machine.serial.screen.find((line) => /^ >|>\[/.test(line)) ?? "";
      const button = />\[ ([^\]]*) \]/.exec(row)?.[1];
      if (pattern.test(button ?? row)) return;
      this.machine.type(button === undefined ? down : right);
      await sleep(1_500);
    }
    throw new KeelsonError("TIMEOUT", `Nothing like ${pattern} gets the focus.`);
  }

  /** The page against its golden one; what differs from run to run is made the same first. */
  async matches(name: string): Promise<void> {
    await sleep(1_000);
    const text = `${this.machine.serial.screen.map(steady).join("\n").trimEnd()}\n`;
    writeFileSync(join(this.#context.directory, `${name}.txt`), text);
    const path = join(import.meta.dirname, "golden", `console-${name}.txt`);
    if (!existsSync(path) || process.env.KEELSON_GOLDEN === "write") {
      mkdirSync(join(import.meta.dirname, "golden"), { recursive: true });
      writeFileSync(path, text);
      this.#context.note(`written: ${path}`);
      return;
    }
    const wanted = readFileSync(path, "utf8");
    expectThat(text === wanted, `the page ${name} is another one:\n${text}\nWanted:\n${wanted}`);
  }
}

function steady(row: string): string {
  return row
    .replace(/^ Keelson \S+/, " Keelson VERSION")
    .replaceAll(/\b[0-9A-F]{2}(?::[0-9A-F]{2}){15}\b/g, "FINGERPRINT")
    .replaceAll(/fec0::\S+/g, "ADDRESS6")
    .replace(/^( {4}Version +)\S+( slot .)?.*$/, "$1VERSION");
}

function expectThat(holds: boolean, message: string): void {
  if (!holds) throw new KeelsonError("INTERNAL", message);
}

async function runWizard(
  options: ApplianceOptions,
  stick: string,
  password: string,
  context: ScenarioContext,
): Promise<void> {
  const { step, directory, iso } = context;
  const usb: Disk = { path: stick, format: "raw", bus: "usb", serial: "stick" };
  const machine = await startInstaller({ ...options, name: `${options.name}-live`, iso }, [usb]);
  const person = new Operator(machine, context);
  try {
    await step("the live medium shows the wizard on its serial line, at 80x24", async () => {
      await person.see(/Addresses of this machine: 10\.0\.2\.15/, limits.bootMs);
      await person.see(/>\[ Set up this machine \]/);
      await machine.screenshot(join(directory, "wizard.png"));
      await person.matches("welcome");
    });
    await step("the keyboard at the screen moves the same page", async () => {
      await press(machine, "tab");
      await person.see(/>\[ Restart \]/);
      await press(machine, "left");
      await person.see(/>\[ Set up this machine \]/);
    });
    await step("the disk has to be chosen", async () => {
      await person.type("\r", /Step 1 of 7: Disk/);
      await person.moveTo(/^Next$/);
      await person.type("\r", /Choose the disk to install to/);
      await person.moveTo(/keelson-boot/);
      await person.type(" ", /\(\*\).*keelson-boot/);
      await person.matches("disk");
      await person.moveTo(/^Next$/);
    });
    await step("a backplane that overlaps the LAN is refused, an own VLAN is taken", async () => {
      await person.type("\r", /Step 2 of 7: LAN/);
      await person.matches("lan");
      await person.moveTo(/^Next$/);
      await person.type("\r", /Step 3 of 7: Backplane/);
      await person.type(`${right}${down}10.0.2.200/24\r20`, /VLAN number +\[20_/);
      await person.moveTo(/^Next$/);
      await person.type("\r", /overlaps with the LAN's 10\.0\.2\.15\/24/);
      await person.type("\x1510.99.0.1/24", /\[10\.99\.0\.1\/24_/);
      await person.moveTo(/^Next$/);
    });
    await step("the network is tried, and answers", async () => {
      await person.type("\r", /Step 4 of 7/);
      await person.see(/ok +Address of the LAN .*10\.0\.2\.15/, 300_000);
      await person.see(/ok +Gateway 10\.0\.2\.2: answers/);
      await person.moveTo(/^(?:Next|Go on all the same)$/);
    });
    await step("name and zone are checked while they are typed; back loses nothing", async () => {
      await person.type("\r", /Step 5 of 7/);
      await person.type("\x15Bad Name\r", /! .*"Bad Name" is not a host name/);
      await person.type(`${up}\x15${nodeName}\r\x15Europe/Stockholm\r`, /Europe\/Stockholm +\]/);
      await person.type(esc, /Step 3 of 7/);
      await person.see(/10\.99\.0\.1\/24/);
      await person.moveTo(/^Next$/);
      await person.type("\r", /ok +Gateway 10\.0\.2\.2: answers/, 300_000);
      await person.moveTo(/^(?:Next|Go on all the same)$/);
      await person.type("\r", new RegExp(`Step 5[\\s\\S]*${nodeName}`));
      await person.moveTo(/^Next$/);
    });
    await step("the password is typed twice and never shown", async () => {
      await person.type("\r", /Step 6 of 7/);
      await person.type(`${password}\r${password}x\r`, /not the same/);
      await person.type(`${up}\x7f`, /Strength: (?:fair|good|strong)/);
      await person.moveTo(/^Next$/);
      await person.type("\r", /Step 7 of 7: Summary[\s\S]*Erases/);
      await person.matches("summary");
      expectThat(!machine.serial.text.includes(password), "The password was on the line.");
    });
    await step("the answers are saved on a stick", async () => {
      await person.moveTo(/^Save answers$/);
      await person.type("\r", /STICK/);
      await person.type("\r", /Saved: keelson-answers\.json on \/dev\//);
      await person.type(esc, /Step 7 of 7/);
    });
    await step("it installs with progress and time left, and restarts", async () => {
      for (let presses = 0; presses < 3; presses++) machine.type("\x1b[D");
      await person.moveTo(/^Install$/);
      await person.type("\r", /\[#*\.*\] +\d+ %/);
      await person.see(/Time left: about/, limits.installMs);
      await person.see(new RegExp(`Keelson is installed as '${nodeName}'`), limits.installMs);
      await person.type("\r", /./);
      expectThat(await machine.waitForEnd(limits.stopMs), "It did not restart.");
    });
  } finally {
    await machine.kill();
  }
}

async function runMenus(
  options: ApplianceOptions,
  password: string,
  context: ScenarioContext,
): Promise<void> {
  const { step, directory } = context;
  const machine = await startAppliance(options);
  const person = new Operator(machine, context);
  const client = new ApplianceClient(options.httpsPort);
  const other = new ApplianceClient(options.httpsPort);
  const next = randomBytes(9).toString("base64url");
  const lanAddress = async () => {
    const view = await client.call<{ config: { lan: { address: string } } }>("GET", "/network");
    return view.config.lan.address;
  };
  try {
    await step("the installed node shows address, fingerprint and health", async () => {
      await client.waitUntilUp(machine, limits.bootMs);
      await client.logIn(password);
      await person.see(/Console +https:\/\/10\.0\.2\.15/, limits.bootMs);
      await person.see(/Certificate +SHA-256 [0-9A-F:]{47}/, limits.bootMs);
      await person.see(/Health +good/, limits.bootMs);
      await machine.screenshot(join(directory, "status.png"));
      await person.matches("status");
    });
    await step("a network change that nobody confirms goes back by itself", async () => {
      await openMenu(person, /^ > +Network /, /Network: LAN/);
      await person.type(`${right}${down}10.0.2.77/24\r10.0.2.2`, /Gateway +\[10\.0\.2\.2_/);
      await person.matches("network");
      await person.moveTo(/^Apply$/);
      await person.type("\r", /The new settings are in force/);
      await person.see(/ {4}10\.0\.2\.77/, 120_000);
      await person.see(/The change was reverted\./, 300_000);
      await client.waitUntilUp(machine, limits.bootMs);
      expectThat((await lanAddress()) === "dhcp", "The LAN is not as it was before.");
      await person.type(esc, /Console +https:\/\/10\.0\.2\.15/, 300_000);
    });
    await step("a confirmed one stays", async () => {
      await openMenu(person, /^ > +Network /, /Network: LAN/);
      await person.type(`${right}${down}\x1510.0.2.15/24\r\x1510.0.2.2`, /Gateway +\[10\.0\.2\.2_/);
      await person.moveTo(/^Apply$/);
      await person.type("\r", /The new settings are in force/);
      await person.moveTo(/^Keep them$/);
      await person.type("\r", /The network settings are kept\./);
      await client.waitUntilUp(machine, limits.bootMs);
      expectThat((await lanAddress()) === "10.0.2.15/24", "The new address is not kept.");
    });
    await step("the password is reset at the console; admin's sessions end", async () => {
      await openMenu(person, /^ > +Password reset/, /New password/);
      await person.type(`${next}\r${next}\r`, /\[ \] Also remove/);
      await person.moveTo(/^Set password$/);
      await person.type("\r", /admin has a new password/);
      const code = await client.call("GET", "/node").then(
        () => "a session",
        (error: KeelsonError) => error.code,
      );
      expectThat(code === "UNAUTHENTICATED", `The old session gives ${code}.`);
      await other.logIn(next);
    });
    await step("the shell asks for the password; the screen shows the same page", async () => {
      await openMenu(person, /^ > +Shell/, /Password of admin/);
      await person.type("wrong\r\r", /Wrong user name or password/);
      await person.type(`${up}\x15${next}\r\r`, /keelson:.*# /, 300_000);
      const size = await person.type(
        "stty -F /dev/tty1 size; echo done-$((40+2))\r",
        /(\d+) (\d+)\s+done-42/,
      );
      await person.type(
        `fold -w ${size[2]} /dev/vcs1 | grep -c 'Password of admin'; echo done-$((50+1))\r`,
        /\b1\s+done-51/,
      );
      await person.type("exit\r", /The shell was closed/, 300_000);
      const told = JSON.stringify(await other.call("GET", "/audit"));
      for (const action of ["open a shell", "close the shell", "reset the password of admin"]) {
        expectThat(told.includes(action), `The audit log doesn't tell: ${action}`);
      }
    });
    await step("a support bundle is downloaded once, without secrets", async () => {
      await openMenu(person, /^ > +Support bundle/, /Make it, to download/);
      const [, token] = await person.type("\r", /support-bundle\/([2-9a-z]{20})/, 300_000);
      const agent = new Agent({ connect: { rejectUnauthorized: false }, headersTimeout: 120_000 });
      const url = `https://127.0.0.1:${options.httpsPort}/api/v1/support-bundle/${token}`;
      const answer = await fetch(url, { dispatcher: agent });
      expectThat(answer.status === 200, `It answers ${answer.status}.`);
      const text = gunzipSync(Buffer.from(await answer.arrayBuffer())).toString("latin1");
      expectThat(text.includes("journal.txt") && text.includes(nodeName), "It holds nothing.");
      expectThat(!/\$argon2id\$|PRIVATE KEY/.test(text), "It holds a secret.");
      expectThat(!text.includes(next), "It holds the password.");
      const again = await fetch(url, { dispatcher: agent });
      expectThat(again.status === 404, `The second time it answers ${again.status}.`);
      await person.type(esc, /Menu/);
    });
    await step("shut down from the menu", async () => {
      await openMenu(person, /^ > +Shut down/, /Shut this node down\?/);
      await person.moveTo(/^Shut down$/);
      machine.type("\r");
      expectThat(await machine.waitForEnd(limits.stopMs), "It did not power off.");
    });
  } finally {
    await machine.kill();
  }
}

/** From any page to the status page, and into a row of the menu. */
async function openMenu(person: Operator, row: RegExp, page: RegExp): Promise<void> {
  for (let presses = 0; presses < 4; presses++) {
    person.machine.type(esc);
    await sleep(2_500);
    if (person.machine.serial.screen.some((line) => /^ {4}Health /.test(line))) break;
  }
  await person.see(/\[ Menu \]/);
  await person.moveTo(/^Menu$/);
  await person.type("\r", /Factory reset/);
  await person.moveTo(row);
  await person.type("\r", page);
}

/** A key of the machine's keyboard. */
async function press(machine: Machine, key: string): Promise<void> {
  await machine.command("send-key", { keys: [{ type: "qcode", data: key }] });
}

function writeStick(path: string): void {
  writeFileSync(path, "");
  truncateSync(path, 2 ** 24);
  mtool("mkfs.vfat", ["-n", "STICK", path]);
}

function mtool(command: string, arguments_: readonly string[]): string {
  const result = spawnSync(command, arguments_, {
    encoding: "utf8",
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  if (result.status === 0) return result.stdout;
  throw new KeelsonError("UNAVAILABLE", `${command}: ${result.error?.message ?? result.stderr}`);
}

/** node.json of an installed disk, without what every installation makes anew. */
function nodeConfiguration(disk: string): string {
  const partition = readPartitions(disk).find(({ label }) => label === "keelson-var");
  if (partition === undefined) throw new KeelsonError("NOT_FOUND", `${disk} has no keelson-var.`);
  const text = mtool("debugfs", [
    ...["-R", "cat /lib/keelson/node.json"],
    `${disk}?offset=${partition.firstByte}`,
  ]);
  const { id: _, store: __, ...rest } = JSON.parse(text) as Record<string, unknown>;
  return JSON.stringify(rest, null, 2);
}
