/**
 * Scenario `console`: the setup wizard answered over the serial line at 80x24 and by the keyboard of
 * the screen, its saved answers used for a second node, then the status screen and its menus, up to
 * the factory reset.
 */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { answerFileName, parseAnswerFile } from "#lib/answer-file/answer-file.ts";
import type { AnswersInput } from "#lib/answer-file/schema.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  type ApplianceOptions,
  createDisk,
  installAppliance,
  limits,
  startInstaller,
} from "./appliance.ts";
import { runMenus } from "./console-menus.ts";
import { expectThat } from "./expectation.ts";
import { type Disk, type Firmware, freePort } from "./machine.ts";
import { keys, Operator } from "./operator.ts";
import { readPartitions } from "./partition-table.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";

const diskBytes = 8 * 2 ** 30;
const nodeName = "keelson-console";

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
    const text = mtool("mtype", ["-i", stick, `::${answerFileName}`]).toString("utf8");
    if (text.includes(password)) throw new KeelsonError("INTERNAL", "The password is in it.");
    const parsed = parseAnswerFile(text, answerFileName);
    expectThat(parsed.node.name === nodeName, `it names the node ${parsed.node.name}`);
    writeFileSync(join(directory, answerFileName), text);
    return JSON.parse(text.replace(/^\/\/.*$/m, "")) as AnswersInput;
  });
  await step("the saved answers install an equal node, unattended", async () => {
    const second = { ...options, name: "second", disk: join(directory, "second.disk.raw") };
    createDisk(second.disk, diskBytes);
    await installAppliance({ ...second, iso: context.iso }, { ...answers, after: "poweroff" });
    const [wanted, got] = [options.disk, second.disk].map(nodeConfiguration);
    expectThat(got === wanted, `its configuration is another one:\n${got}\nWanted:\n${wanted}`);
  });
  await context.group("the installed node's menus", async () => {
    await runMenus({ node: options, nodeName, password, stick, readStick: read(stick) }, context);
    await step("of what the reset node was told, its disk holds nothing", async () => {
      const left = debugfs(options.disk, "ls -p /lib/keelson").match(/[^/]+(?=\/[^/]*\/$)/gm) ?? [];
      const told = left.filter((name) =>
        /node\.json|factory-reset|^api$|^cluster-store$/.test(name),
      );
      expectThat(told.length === 0, `There is still: ${told.join(", ")}`);
    });
  });
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
      await person.press("tab");
      await person.see(/>\[ Restart \]/);
      await person.press("left");
      await person.see(/>\[ Set up this machine \]/);
    });
    await step("the disk has to be chosen", async () => {
      await person.type("\r", /Step 1 of 7: Disk/);
      await person.moveTo(/^Next$/);
      await person.type("\r", / > {2}\( \) \/dev[\s\S]*Choose the disk to install to/);
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
      await person.type(`${keys.right}${keys.down}10.0.2.200/24\r20`, /VLAN number +\[20_/);
      await person.moveTo(/^Next$/);
      await person.type("\r", /overlaps with the LAN's 10\.0\.2\.15\/24/);
      await person.matches("backplane");
      await person.type(`${keys.eraseLine}10.99.0.1/24`, /\[10\.99\.0\.1\/24_/);
      await person.moveTo(/^Next$/);
    });
    await step("the network is tried, and answers", async () => {
      await person.type("\r", /Step 4 of 7/);
      await person.see(/ok +Address of the LAN .*10\.0\.2\.15/, 300_000);
      await person.see(/ok +Gateway 10\.0\.2\.2: answers/);
      await person.see(/ok +Backplane \(backplane\): the port has a link/);
      await person.moveTo(/^(?:Next|Go on all the same)$/);
    });
    await step("name and zone are checked while they are typed; back loses nothing", async () => {
      await person.type("\r", /Step 5 of 7/);
      await person.type(`${keys.eraseLine}Bad Name\r`, /! .*"Bad Name" is not a host name/);
      await person.matches("time");
      await person.type(
        `${keys.up}${keys.eraseLine}${nodeName}\r${keys.eraseLine}Europe/Stockholm\r`,
        /Europe\/Stockholm +\]/,
      );
      await person.type(keys.escape, /Step 3 of 7/);
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
      await person.type(`${keys.up}\x7f`, /Strength: (?:fair|good|strong)/);
      await person.moveTo(/^Next$/);
      await person.type("\r", /Step 7 of 7: Summary[\s\S]*Erases/);
      await person.matches("summary");
      expectThat(!machine.serial.text.includes(password), "The password was on the line.");
    });
    await step("the answers are saved on a stick", async () => {
      await person.moveTo(/^Save answers$/);
      await person.type("\r", /STICK/);
      await person.type("\r", /Saved: keelson-answers\.json on \/dev\//);
      await person.matches("save");
      await person.type(keys.escape, /Step 7 of 7/);
    });
    await step("it installs with progress and time left, and restarts", async () => {
      for (let presses = 0; presses < 3; presses++) await person.typeKey(keys.left);
      await person.moveTo(/^Install$/);
      await person.type("\r", /\[#*\.*\] +\d+ %/);
      await person.see(/Time left: about/, limits.installMs);
      await person.see(new RegExp(`Keelson is installed as '${nodeName}'`), limits.installMs);
      await person.matches("installed");
      machine.type("\r");
      expectThat(await machine.waitForEnd(limits.stopMs), "It did not restart.");
    });
  } finally {
    await machine.kill();
  }
}

function writeStick(path: string): void {
  writeFileSync(path, "");
  truncateSync(path, 2 ** 24);
  mtool("mkfs.vfat", ["-n", "STICK", path]);
}

function read(stick: string) {
  return {
    list: () => mtool("mdir", ["-b", "-i", stick, "::"]).toString("utf8"),
    read: (name: string) => mtool("mtype", ["-i", stick, `::${name}`]),
  };
}

function mtool(command: string, arguments_: readonly string[]): Buffer {
  const result = spawnSync(command, arguments_, {
    maxBuffer: 2 ** 26,
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  if (result.status === 0) return result.stdout;
  throw new KeelsonError("UNAVAILABLE", `${command}: ${result.error?.message ?? result.stderr}`);
}

/** What debugfs says of a disk's /var. */
function debugfs(disk: string, request: string): string {
  const partition = readPartitions(disk).find(({ label }) => label === "keelson-var");
  if (partition === undefined) throw new KeelsonError("NOT_FOUND", `${disk} has no keelson-var.`);
  const place = `${disk}?offset=${partition.firstByte}`;
  return mtool("debugfs", ["-R", request, place]).toString("utf8");
}

/** node.json of an installed disk, without what every installation makes anew. */
function nodeConfiguration(disk: string): string {
  const text = debugfs(disk, "cat /lib/keelson/node.json");
  const { id: _, store: __, ...rest } = JSON.parse(text) as Record<string, unknown>;
  return JSON.stringify(rest, null, 2);
}
