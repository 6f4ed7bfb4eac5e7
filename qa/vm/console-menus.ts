/** Of scenario `console`: the status screen and each of its menus, on an installed node. */

import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import { Agent, fetch } from "undici";
import type { KeelsonError } from "#lib/model/errors.ts";
import { ApplianceClient, type ApplianceOptions, limits, startAppliance } from "./appliance.ts";
import { expectThat } from "./expectation.ts";
import { keys, Operator } from "./operator.ts";
import type { ScenarioContext } from "./scenario.ts";

export interface MenusOptions {
  readonly node: ApplianceOptions;
  readonly nodeName: string;
  /** Of admin, at the start. */
  readonly password: string;
  /** An image of a stick (vfat), to be plugged in. */
  readonly stick: string;
  /** Names of the files on the stick, and the bytes of one of them. */
  readonly readStick: { list(): string; read(name: string): Buffer };
}

const secrets = /\$argon2id\$|\$6\$|\$y\$|PRIVATE KEY/;

export async function runMenus(options: MenusOptions, context: ScenarioContext): Promise<void> {
  const { node, nodeName, stick, readStick } = options;
  const { directory } = context;
  const machine = await startAppliance(node);
  const person = new Operator(machine, context);
  const client = new ApplianceClient(node.httpsPort);
  const lan = async () => {
    const view = await client.call<{ config: { lan: { address: string } } }>("GET", "/network");
    return view.config.lan.address;
  };
  let password = options.password;
  /** Each starts at the status page, so that one that fails doesn't take the others with it. */
  const step = async (name: string, run: () => Promise<void>): Promise<void> => {
    try {
      await context.step(name, run);
    } catch (error) {
      await machine.screenshot(join(directory, "failed.png")).catch(() => {});
      if (!machine.running) throw error;
    }
  };
  try {
    await context.step("the installed node shows address, fingerprints and health", async () => {
      await client.waitUntilUp(machine, limits.bootMs);
      await client.logIn(password);
      await person.see(/Console +https:\/\/10\.0\.2\.15/, limits.bootMs);
      await person.see(/Certificate +SHA-256 [0-9A-F:]{47}/, limits.bootMs);
      await person.see(/Its CA +SHA-256 [0-9A-F:]{47}/);
      await person.see(/Health +good/, limits.bootMs);
      await machine.screenshot(join(directory, "status.png"));
      await person.matches("status");
      const view = await client.call<{ certificateFingerprint: string }>("GET", "/node");
      const shown = person.page.replaceAll(/[^0-9A-F:]+/g, ":");
      expectThat(
        shown.includes(view.certificateFingerprint.slice(0, 47)),
        `The CA's fingerprint is another one: ${view.certificateFingerprint}`,
      );
    });
    await step("a terminal that is too small is told so; a larger one shows the page", async () => {
      await person.openMenu(/^ > +Password reset/, /New password/);
      await person.type("half typed", /\*{10}/);
      machine.serial.resize(12, 60);
      await person.type(keys.redraw, /This screen is 60x12\.\s*Keelson needs 80x24\./);
      machine.serial.resize(30, 100);
      await person.type(keys.redraw, /^ {11}> {2}New password +\[\*{10}_/m);
      machine.serial.resize(24, 80);
      await person.type(keys.redraw, /^ Keelson.*\n[\s\S]*\n > {2}New password +\[\*{10}_/);
    });
    await step(
      "a terminal attached anew shows the page as it was, with what was typed",
      async () => {
        // Whoever attaches presses some key; after a pause that sends all of the page.
        await sleep(6_000);
        machine.serial.attachAnew();
        await person.type("x", /^ Keelson[\s\S]*\n > {2}New password +\[\*{11}_[\s\S]*\[ Back \]/);
        await person.typeKey(keys.eraseLine);
      },
    );
    await step("the other slot is empty: it can't be booted, and the menu says why", async () => {
      await person.openMenu(/^ > +Other version +not possible: slot B is empty/, /can't be booted/);
      expectThat(!person.page.includes("Boot it"), "It can be chosen.");
      await person.matches("slot");
      await person.type(keys.escape, /Factory reset/);
      await person.matches("menu");
    });
    await step("a network change that nobody confirms goes back by itself", async () => {
      await person.openMenu(/^ > +Network /, /Network: LAN/);
      await person.type(
        `${keys.right}${keys.down}10.0.2.77/24\r10.0.2.2`,
        /Gateway +\[10\.0\.2\.2_/,
      );
      await person.matches("network");
      await person.moveTo(/^Apply$/);
      await person.type("\r", /The new settings are in force/);
      await person.see(/^ {6}10\.0\.2\.77$/m, 120_000);
      expectThat(!person.page.includes("10.0.2.15"), "The old address is still there.");
      await person.see(/The change was reverted\./, 300_000);
      await client.waitUntilUp(machine, limits.bootMs);
      expectThat((await lan()) === "dhcp", "The LAN is not as it was before.");
      await person.type(keys.escape, /Console +https:\/\/10\.0\.2\.15/, 300_000);
    });
    await step("a confirmed one stays", async () => {
      await person.openMenu(/^ > +Network /, /Network: LAN/);
      const { right, down, eraseLine } = keys;
      await person.type(
        `${right}${down}${eraseLine}10.0.2.15/24\r${eraseLine}10.0.2.2`,
        /Gateway +\[10\.0\.2\.2_/,
      );
      await person.moveTo(/^Apply$/);
      await person.type("\r", /The new settings are in force/);
      await person.see(/^ {6}10\.0\.2\.15$/m, 120_000);
      await person.matches("confirm");
      await person.moveTo(/^Keep them$/);
      await person.type("\r", /The network settings are kept\./);
      await client.waitUntilUp(machine, limits.bootMs);
      expectThat((await lan()) === "10.0.2.15/24", "The new address is not kept.");
    });
    await step("the password is reset at the console; admin's sessions end", async () => {
      const next = randomBytes(9).toString("base64url");
      await person.openMenu(/^ > +Password reset/, /New password/);
      await person.type(`${next}\r${next}\r`, /> {2}\[ \] Also remove/);
      await person.moveTo(/^Set password$/);
      await person.type("\r", /admin has a new password/);
      password = next;
      const code = await client.call("GET", "/node").then(
        () => "a session",
        (error: KeelsonError) => error.code,
      );
      expectThat(code === "UNAUTHENTICATED", `The old session gives ${code}.`);
      expectThat(!machine.serial.text.includes(next), "The password was on the line.");
      await client.logIn(next);
    });
    await step("the shell asks for the password; the screen shows the same page", async () => {
      await person.openMenu(/^ > +Shell/, /Password of admin/);
      await person.type("wrong\r\r", /Wrong user name or password/);
      await person.type(
        `${keys.up}${keys.eraseLine}${password}\r\r`,
        new RegExp(`root@${nodeName}:.*# `),
        300_000,
      );
      const size = await person.type(
        "stty -F /dev/tty1 size; echo done-$((40+2))\r",
        /(\d+) (\d+)\s+done-42/,
      );
      await person.type(
        `fold -w ${size[2]} /dev/vcs1 | grep -c 'Password of admin'; echo done-$((50+1))\r`,
        /\b1\s+done-51/,
      );
      await person.type("exit\r", /The shell was closed/, 300_000);
      const told = JSON.stringify(await client.call("GET", "/audit"));
      for (const action of ["open a shell", "close the shell", "reset the password of admin"]) {
        expectThat(told.includes(action), `The audit log doesn't tell: ${action}`);
      }
    });
    /** Fails unless it holds a journal, and no secret. */
    const checkBundle = (bytes: Buffer) => {
      const text = gunzipSync(bytes).toString("latin1");
      expectThat(text.includes("journal.txt") && text.includes(nodeName), "It holds nothing.");
      writeFileSync(join(directory, "support.tar"), gunzipSync(bytes));
      const found = secrets.exec(text);
      expectThat(found === null, `It holds a secret: ${found?.[0]}`);
      for (const each of [options.password, password]) {
        expectThat(!text.includes(each), "It holds a password.");
      }
    };
    await step("a support bundle is written on a stick", async () => {
      await machine.plugIn("stick", stick, true);
      // Until udev has seen it and it is mounted for its bundles.
      await sleep(20_000);
      await person.openMenu(/^ > +Support bundle/, /Make it, on \/dev\/sd[a-z] \(STICK\)/);
      await person.moveTo(/Make it, on/);
      const [, name] = await person.type("\r", /Saved: (\S+) on \/dev\/sd[a-z]/, 300_000);
      await machine.pullOut("stick");
      await sleep(5_000);
      expectThat(readStick.list().includes("gz"), `It isn't on it:\n${readStick.list()}`);
      checkBundle(readStick.read(name));
    });
    await step("a support bundle is downloaded once, without secrets", async () => {
      await person.openMenu(/^ > +Support bundle/, /Make it, to download/);
      await person.see(/Plug in a USB stick/);
      await person.matches("support");
      const [, token] = await person.type("\r", /support-bundle\/([2-9a-z]{20})/, 300_000);
      const agent = new Agent({ connect: { rejectUnauthorized: false }, headersTimeout: 120_000 });
      const url = `https://127.0.0.1:${node.httpsPort}/api/v1/support-bundle/${token}`;
      const answer = await fetch(url, { dispatcher: agent });
      expectThat(answer.status === 200, `It answers ${answer.status}.`);
      checkBundle(Buffer.from(await answer.arrayBuffer()));
      const again = await fetch(url, { dispatcher: agent });
      expectThat(again.status === 404, `The second time it answers ${again.status}.`);
    });
    await step("the logs are searched", async () => {
      await person.openMenu(/^ > +Logs/, /Search for/);
      await person.see(/\d\d-\d\dT\d\d:\d\d:\d\d \S/);
      await person.type("open a shell\r", /\n {2}\d\d-\d\dT\S+ .*open a shell/);
      await person.typeKey(`${keys.eraseLine}zzzz-nothing\r`);
      await person.see(/Nothing found\./);
      await person.typeKey(keys.eraseLine);
    });
    await step("restart from the menu: the kept network is there again", async () => {
      await person.openMenu(/^ > +Restart/, /Restart this node\?/);
      await person.moveTo(/^Restart$/);
      machine.type("\r");
      await person.seeItGo(limits.stopMs);
      await person.see(/Console +https:\/\/10\.0\.2\.15/, limits.bootMs);
      await person.see(/Health +good/, limits.bootMs);
      await client.waitUntilUp(machine, limits.bootMs);
      await client.logIn(password);
      expectThat((await lan()) === "10.0.2.15/24", "The kept address is not there.");
    });
    await step("factory reset, by the node's name: it forgets all it was told", async () => {
      await person.openMenu(/^ > +Factory reset/, /Name of this node/);
      await person.type("another", /\[another_/);
      await person.moveTo(/^Reset$/);
      await person.type("\r", new RegExp(`Type ${nodeName} to reset this node`));
      await person.matches("reset");
      await person.type(`${keys.eraseLine}${nodeName}`, new RegExp(`\\[${nodeName}_`));
      await person.moveTo(/^Reset$/);
      machine.type("\r");
      await person.seeItGo(limits.stopMs);
      await person.see(/This disk is not set up/, limits.bootMs);
      await person.matches("not-set-up");
    });
    await step("shut down from the menu", async () => {
      await person.openMenu(/^ > +Shut down/, /Shut this node down\?/);
      await person.moveTo(/^Shut down$/);
      machine.type("\r");
      expectThat(await machine.waitForEnd(limits.stopMs), "It did not power off.");
    });
  } finally {
    await machine.kill();
  }
}
