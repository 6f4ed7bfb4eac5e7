/** A person at a machine's terminal of 80x24: types, and reads the pages of the console. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import { fatal } from "./appliance.ts";
import { expectThat } from "./expectation.ts";
import type { Machine } from "./machine.ts";
import type { ScenarioContext } from "./scenario.ts";

export const keys = {
  up: "\x1b[A",
  down: "\x1b[B",
  right: "\x1b[C",
  left: "\x1b[D",
  escape: "\x1b",
  eraseLine: "\x15",
  redraw: "\x0c",
} as const;

export class Operator {
  readonly machine: Machine;
  readonly #context: Pick<ScenarioContext, "directory" | "note">;

  constructor(machine: Machine, context: Pick<ScenarioContext, "directory" | "note">) {
    this.machine = machine;
    this.#context = context;
  }

  /** What the terminal shows, rows with line ends between them. */
  get page(): string {
    return this.machine.serial.screen.join("\n");
  }

  async see(pattern: RegExp, timeoutMs = 240_000): Promise<RegExpExecArray> {
    try {
      return await this.machine.serial.waitFor(pattern, timeoutMs, { fail: fatal });
    } catch (error) {
      this.#context.note(`The terminal shows:\n${this.page}`);
      throw error;
    }
  }

  /** Types and waits for what comes of it: what the page says before any change doesn't count. */
  async type(text: string, pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray> {
    this.machine.serial.skip();
    await this.typeKey(text);
    return this.see(pattern, timeoutMs);
  }

  /** Types and waits until the terminal shows something else, `timeoutMs` at most. */
  async typeKey(text: string, timeoutMs = 6_000): Promise<void> {
    // The rest of a page that is on its way is no answer to this key.
    await this.#settled(2_000);
    const before = this.page;
    const until = Date.now() + timeoutMs;
    this.machine.type(text);
    while (this.page === before && Date.now() < until) await sleep(100);
    // For whoever watches.
    writeFileSync(join(this.#context.directory, `${this.machine.name}.screen.txt`), this.page);
    await this.#settled(2_000);
  }

  async #settled(timeoutMs: number): Promise<void> {
    const until = Date.now() + timeoutMs;
    for (let seen = ""; seen !== this.page && Date.now() < until; await sleep(200)) {
      seen = this.page;
    }
  }

  /** Waits until the console has left the terminal, as it does when the machine goes down. */
  async seeItGo(timeoutMs: number): Promise<void> {
    const until = Date.now() + timeoutMs;
    while (this.machine.serial.showsPage) {
      if (Date.now() > until) {
        throw new KeelsonError("TIMEOUT", `The console is still there:\n${this.page}`);
      }
      await sleep(300);
    }
    this.machine.serial.skip();
  }

  /** Down, or right along the buttons, until the row or button that has the focus fits. */
  async moveTo(pattern: RegExp): Promise<void> {
    for (let presses = 0; presses < 30; presses++) {
      const row = this.machine.serial.screen.find((line) => /^ >|>\[/.test(line)) ?? "";
      const button = />\[ ([^\]]*) \]/.exec(row)?.[1];
      if (pattern.test(button ?? row)) return;
      await this.typeKey(button === undefined ? keys.down : keys.right);
    }
    throw new KeelsonError(
      "TIMEOUT",
      `Nothing like ${pattern} gets the focus. The terminal shows:\n${this.page}`,
    );
  }

  /** From any page of an installed node to the status page, and into a row of the menu. */
  async openMenu(row: RegExp, page: RegExp): Promise<void> {
    for (let presses = 0; presses < 5 && !/^ {4}Health /m.test(this.page); presses++) {
      await this.typeKey(keys.escape);
    }
    await this.see(/\[ Menu \]/);
    await this.moveTo(/^Menu$/);
    await this.type("\r", /Factory reset/);
    await this.moveTo(row);
    await this.type("\r", page);
  }

  /** A key of the machine's own keyboard. */
  async press(key: string): Promise<void> {
    await this.machine.command("send-key", { keys: [{ type: "qcode", data: key }] });
  }

  /**
   * The page against the golden one of this name, within a minute; what differs from run to run is
   * made the same first. KEELSON_GOLDEN=write writes it.
   */
  async matches(name: string): Promise<void> {
    const path = join(import.meta.dirname, "golden", `console-${name}.txt`);
    await sleep(1_000);
    const wanted =
      existsSync(path) && process.env.KEELSON_GOLDEN !== "write"
        ? readFileSync(path, "utf8")
        : undefined;
    const until = Date.now() + 60_000;
    while (wanted !== undefined && this.#steadyPage() !== wanted && Date.now() < until) {
      await sleep(500);
    }
    const text = this.#steadyPage();
    writeFileSync(join(this.#context.directory, `${name}.txt`), text);
    if (wanted === undefined) {
      mkdirSync(join(import.meta.dirname, "golden"), { recursive: true });
      writeFileSync(path, text);
      this.#context.note(`written: ${path}`);
      return;
    }
    expectThat(text === wanted, `the page ${name} is another one:\n${text}\nWanted:\n${wanted}`);
  }

  #steadyPage(): string {
    return `${this.machine.serial.screen.map(steady).join("\n").trimEnd()}\n`;
  }
}

/** Version, fingerprints, addresses of the test's network and names of ports and sticks differ. */
function steady(row: string): string {
  return row
    .replace(/^ Keelson \S+ +/, " Keelson VERSION  ")
    .replaceAll(/\b[0-9A-F]{2}(?::[0-9A-F]{2}){15}\b/g, "FINGERPRINT")
    .replaceAll(/fec0::[0-9a-f:]+/g, "ADDRESS6")
    .replaceAll(/\benp\d+s\d+\b/g, "PORT")
    .replaceAll(/\/dev\/sd[a-z]\b/g, "/dev/sdX")
    .replace(/ in \d+ s\./, " in SECONDS s.")
    .replace(/ \((?:\d+ min )?\d+ s\)/, " (TIME)")
    .replace(/^( {4}Version +)\S+(?=, slot|$)/, "$1VERSION")
    .replace(/^( {2}Running: )\S+(?=, slot)/, "$1VERSION");
}
