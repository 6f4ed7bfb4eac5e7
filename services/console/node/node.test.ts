import xterm from "@xterm/headless";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { NetworkConfig } from "#lib/network/schema.ts";
import type { Key, KeyName } from "#lib/terminal/keys.ts";
import { KeyParser } from "#lib/terminal/keys.ts";
import { paint } from "#lib/terminal/paint.ts";
import type { NetworkView } from "#services/network/schema.ts";
import { statusContent } from "../status.ts";
import { type NodeFacts, readUnitStates } from "./facts.ts";
import {
  initialNode,
  type NodeEffect,
  type NodeEvent,
  type NodeState,
  nodeTransition,
} from "./node.ts";
import { redact, redacted, withoutSecrets } from "./support.ts";

const config: NetworkConfig = {
  bonds: [],
  lan: { interface: "52:54:00:00:00:01", address: "192.0.2.10/24", gateway: "192.0.2.1", dns: [] },
  netboot: {
    interface: "enp3s0",
    mode: "server",
    address: "10.77.0.1/24",
    pool: "10.77.0.100-10.77.0.199",
    dns: [],
  },
};
const link = (name: string, mac: string, addresses: string[] = []) => ({
  ...{ name, kind: "port", mac, permanentMac: mac, up: true, carrier: true, mtu: 1500 },
  ...{ mtuMax: 9000, bond: undefined, vlan: undefined, master: undefined },
  addresses: addresses.map((address) => ({ address, dynamic: false })),
});
const network: NetworkView = {
  ...{ config, pending: null, lastChange: null, roles: { lan: "enp1s0", netboot: "enp3s0" } },
  links: [
    link("enp1s0", "52:54:00:00:00:01", ["192.0.2.10/24"]),
    link("enp2s0", "52:54:00:00:00:02"),
    link("enp3s0", "52:54:00:00:00:03", ["10.77.0.1/24"]),
  ],
  ...{ problems: [], differences: [], firewall: { active: true, failure: null } },
  restartNeeded: null,
};
const fingerprint = Array.from({ length: 32 }, (_, i) =>
  (i * 7).toString(16).padStart(2, "0").toUpperCase(),
).join(":");
const caFingerprint = fingerprint.split(":").reverse().join(":");
const facts: NodeFacts = {
  ...{ name: "keelson-1", version: "2026.11.0", developmentBuild: true, unconfigured: false },
  units: [{ name: "api", active: "active", result: "success" }],
  api: {
    ...{ name: "keelson-1", version: "2026.11.0", developmentBuild: true },
    ...{ fingerprint, caFingerprint },
    ...{ addresses: ["192.0.2.10", "2001:db8::10"], conditions: [] },
  },
  network,
  slots: { running: "A", other: "B", otherVersion: "2026.10.0", why: undefined },
};

class Person {
  state: NodeState = initialNode();
  readonly effects: NodeEffect[] = [];
  readonly #parser = new KeyParser();

  constructor(changes: Partial<NodeFacts> = {}) {
    this.send({ kind: "facts", facts: { ...facts, ...changes } });
  }

  send(event: NodeEvent): void {
    const { state, effects } = nodeTransition(this.state, event);
    this.state = state;
    this.effects.push(...effects);
  }

  type(text: string): this {
    for (const [, name, character] of text.matchAll(/<(\w+)>|(.)/gs)) {
      if (name === undefined) {
        for (const key of this.#parser.push(Buffer.from(character))) this.key(key);
      } else this.key({ kind: "key", name: name as KeyName });
    }
    return this;
  }

  key(key: Key): void {
    this.send({ kind: "key", key, line: "/dev/ttyS0" });
  }

  /** Down to a field or button, and Enter. */
  choose(focus: string): this {
    for (let i = 0; i < 40 && this.state.form.focus !== focus; i++) this.type("<down>");
    expect(this.state.form.focus).toBe(focus);
    return this.type("<enter>");
  }

  /** The answer to the last effect. */
  answer(event: object): void {
    this.send({ ...event, request: this.state.request } as NodeEvent);
  }

  menu(place: string): this {
    this.type("<home>");
    while (this.state.place !== "status") this.type("<escape>");
    this.type("<home><enter>");
    for (let i = 0; i < 12 && this.state.form.focus !== place; i++) this.type("<down>");
    return this.type("<enter>");
  }

  get text(): string {
    const content = statusContent(this.state);
    return content.kind === "page" ? content.grid.lines().join("\n") : "";
  }

  get last(): NodeEffect | undefined {
    return this.effects.at(-1);
  }
}

async function shown(person: Person): Promise<string> {
  const content = statusContent(person.state);
  if (content.kind !== "page") throw new Error("no page");
  const terminal = new xterm.Terminal({ rows: 24, cols: 80, allowProposedApi: true });
  await new Promise<void>((done) => terminal.write(paint(undefined, content.grid), done));
  const buffer = terminal.buffer.active;
  const rows = Array.from({ length: 24 }, (_, row) =>
    (buffer.getLine(row)?.translateToString(true) ?? "").trimEnd(),
  );
  return `${rows.join("\n")}\ncursor ${buffer.cursorY},${buffer.cursorX}\n`;
}
const golden = (name: string) => `golden/${name}.txt`;
const journal = Array.from(
  { length: 60 },
  (_, n) => `11-21T06:${String(n).padStart(2, "0")}:00 api[512]: line ${n}`,
);

describe("golden screens", () => {
  test.each<[string, Partial<NodeFacts>]>([
    ["status", {}],
    [
      "status-starting",
      {
        api: undefined,
        network: undefined,
        slots: undefined,
        units: [{ name: "api", active: "activating", result: "success" }],
        name: "",
      },
    ],
    [
      "status-attention",
      {
        units: [{ name: "chunk-store", active: "failed", result: "exit-code" }],
        api: {
          ...facts.api!,
          conditions: [
            {
              severity: "critical",
              subject: null,
              title: "The store can't be read.",
              remedy: "Look at its disk, then restart keelson-chunk-store.",
            },
            {
              severity: "info",
              subject: null,
              title: "This is a development build.",
              remedy: null,
            },
          ],
        },
      },
    ],
    ["status-reset", { unconfigured: true, api: undefined, network: undefined, name: "" }],
  ])("%s", async (name, changes) => {
    await expect(await shown(new Person(changes))).toMatchFileSnapshot(golden(name));
  });

  test.each(["network", "password", "shell", "restart", "powerOff", "slot", "reset"])(
    "%s",
    async (place) => {
      const person = new Person().menu(place);
      expect(person.state.place).toBe(place);
      await expect(await shown(person)).toMatchFileSnapshot(golden(place));
    },
  );

  test("nothing in the other slot: the menu says so, its page why", async () => {
    const slots = { ...facts.slots!, otherVersion: null, why: "is empty" };
    const person = new Person({ slots }).type("<enter>");
    await expect(await shown(person)).toMatchFileSnapshot(golden("menu-slot-empty"));
    person.menu("slot");
    await expect(await shown(person)).toMatchFileSnapshot(golden("slot-empty"));
    person.type("<enter>");
    expect(person.effects).toEqual([]);
  });

  test("the backplane's address is none for browsers", async () => {
    const backplane = link("backplane", "52:54:00:00:00:01", ["10.99.0.1/24"]);
    const person = new Person({
      api: { ...facts.api!, addresses: ["192.0.2.10", "10.99.0.1"] },
      network: {
        ...network,
        roles: { ...network.roles, backplane: "backplane" },
        links: [...network.links, backplane],
      },
    });
    expect(person.text).toContain("https://192.0.2.10/");
    expect(person.text).not.toContain("10.99.0.1");
  });

  test("more that is wrong than the screen has rows for", async () => {
    const conditions = Array.from({ length: 9 }, (_, index) => ({
      ...{ severity: "critical", subject: null, remedy: null },
      title: `Fault number ${index + 1}.`,
    }));
    const addresses = [...facts.api!.addresses, "2001:db8::11", "192.0.2.12", "192.0.2.13"];
    const person = new Person({ api: { ...facts.api!, addresses, conditions } });
    await expect(await shown(person)).toMatchFileSnapshot(golden("status-crowded"));
  });

  test("menu, backplane, logs, support", async () => {
    const person = new Person().type("<enter>");
    await expect(await shown(person)).toMatchFileSnapshot(golden("menu"));
    person.menu("network").type("<end><left><enter>");
    expect(person.state.place).toBe("backplane");
    await expect(await shown(person)).toMatchFileSnapshot(golden("backplane"));
    person.menu("logs").answer({ kind: "log", lines: journal });
    await expect(await shown(person)).toMatchFileSnapshot(golden("logs"));
    person.menu("support").answer({
      kind: "media",
      media: [{ device: "/dev/sdd1", label: "STICK", sizeBytes: 2 ** 34 }],
    });
    await expect(await shown(person)).toMatchFileSnapshot(golden("support"));
    person.type("<home><enter>");
    expect(person.last).toMatchObject({ kind: "bundle", target: "url" });
    person.answer({
      kind: "support",
      url: "https://192.0.2.10/api/v1/support-bundle/k7pdx2mqabcdefghjkmn",
      place: "",
    });
    await expect(await shown(person)).toMatchFileSnapshot(golden("support-ready"));
  });

  test("a network change that waits", async () => {
    const person = new Person()
      .menu("network")
      .type("<down><eraseLine>192.0.2.11/24")
      .choose("button:apply");
    expect(person.last).toMatchObject({
      kind: "apply",
      config: { lan: { address: "192.0.2.11/24", gateway: "192.0.2.1" }, netboot: config.netboot },
    });
    person.answer({ kind: "applied" });
    const pending = { id: "c1", config, applied: true, secondsLeft: 57 };
    person.send({ kind: "facts", facts: { ...facts, network: { ...network, pending } } });
    person.send({ kind: "second" });
    expect(person.text).toContain("in 56 s");
    await expect(await shown(person)).toMatchFileSnapshot(golden("confirm"));
    person.type("<right><enter>");
    expect(person.last).toMatchObject({ kind: "keep", id: "c1" });
  });
});

describe("a person at an installed node", () => {
  test("resets the password only with the same one typed twice; it is forgotten at once", () => {
    const person = new Person()
      .menu("password")
      .type("new password 1<enter>new password 2<enter><down><enter>");
    expect(person.effects.filter(({ kind }) => kind === "setPassword")).toEqual([]);
    expect(person.text).toContain("not the same");
    person.type("<eraseLine>new password 1<enter><down><enter>");
    expect(person.last).toMatchObject({
      kind: "setPassword",
      password: "new password 1",
      removeSecondFactor: false,
    });
    person.answer({ kind: "told", notice: "done", to: "menu" });
    expect(JSON.stringify(person.state)).not.toContain("new password 1");
  });

  test("resets the node only with its name typed", () => {
    const person = new Person().menu("reset").type("keelson<enter> <down><enter>");
    expect(person.effects).toEqual([]);
    expect(person.text).toContain("Type keelson-1 to reset this node.");
    person.type("<eraseLine>keelson-1<enter><down><enter>");
    expect(person.last).toMatchObject({ kind: "reset", erasePool: true });
  });

  test("Enter too often restarts nothing", () => {
    for (const place of ["restart", "powerOff", "slot"]) {
      const person = new Person().menu(place).type("<enter><enter>");
      expect(
        person.effects.filter(({ kind }) => kind !== "readLogs"),
        place,
      ).toEqual([]);
    }
  });

  test("gets the shell on the line where the password was typed, and the page back after it", () => {
    const person = new Person().menu("shell").type("admin password<enter><enter>");
    expect(person.last).toMatchObject({
      kind: "shell",
      password: "admin password",
      line: "/dev/ttyS0",
    });
    person.answer({ kind: "failed", message: "Wrong user name or password." });
    expect(person.text).toContain("Wrong user name or password.");
  });

  test("sees a change that was made in the browser, and that nobody pressing a key goes home", () => {
    const person = new Person();
    const pending = { id: "c2", config, applied: true, secondsLeft: 30 };
    person.send({ kind: "facts", facts: { ...facts, network: { ...network, pending } } });
    expect(person.state.place).toBe("confirm");
    person.send({ kind: "idle" });
    expect(person.state.place).toBe("confirm");
    const other = new Person().menu("password").type("half-typed");
    other.send({ kind: "idle" });
    expect(other.state.place).toBe("status");
    expect(JSON.stringify(other.state)).not.toContain("half-typed");
  });

  test("without the updater there is no other version in the menu", () => {
    expect(new Person({ slots: undefined }).type("<enter>").text).not.toContain("Other version");
  });

  test("any keys: never an exception, always a whole page", () => {
    const names: KeyName[] = [
      "up",
      "down",
      "left",
      "right",
      "home",
      "end",
      "pageUp",
      "pageDown",
      "tab",
      "backTab",
      "enter",
      "escape",
      "backspace",
      "delete",
      "eraseLine",
      "eraseWord",
    ];
    const anyKey = fc.oneof(
      fc.constantFrom(...names).map((name): Key => ({ kind: "key", name })),
      fc
        .string({ minLength: 1, maxLength: 1, unit: "binary" })
        .map((text): Key => ({ kind: "text", text })),
      fc.constant<Key>({ kind: "text", text: " " }),
    );
    fc.assert(
      fc.property(fc.array(anyKey, { maxLength: 120 }), (keys) => {
        const person = new Person();
        for (const key of keys) {
          person.key(key);
          if (person.state.busy !== undefined) person.answer({ kind: "failed", message: "no" });
          expect(person.text.split("\n")).toHaveLength(24);
        }
      }),
      { numRuns: 120 },
    );
  });
});

test("unit states: not loaded and not wanted are left out", () => {
  const show = (id: string, load: string, active: string, condition: string) =>
    `Result=success\nConditionResult=${condition}\nId=${id}.service\nLoadState=${load}\nActiveState=${active}`;
  const output = [
    show("keelson-api", "loaded", "active", "yes"),
    show("keelson-netboot", "loaded", "inactive", "no"),
    show("keelson-cluster-store", "not-found", "inactive", "no"),
    show("keelson-chunk-store", "loaded", "failed", "yes"),
  ].join("\n\n");
  expect(readUnitStates(`${output}\n`)).toEqual([
    { name: "api", active: "active", result: "success" },
    { name: "chunk-store", active: "failed", result: "success" },
  ]);
});

describe("support bundle", () => {
  test("settings lose what a name says is a secret, at any depth", () => {
    const value = {
      adminHash: "$6$x",
      network: { lan: { dns: ["a"] }, tokens: [{ id: 1, token: "t" }] },
      totpSeed: null,
    };
    expect(withoutSecrets(value)).toEqual({
      adminHash: redacted,
      network: { lan: { dns: ["a"] }, tokens: redacted },
      totpSeed: null,
    });
  });

  test.each([
    ["hash $argon2id$v=19$m=32768,t=3,p=1$c2FsdA$dGFn end", "argon2id"],
    ["hash $6$abcdefgh$xyzzyHASH end", "xyzzyHASH"],
    ["authorization: Bearer kl_abcdefghijklmnop", "kl_abcdefghijklmnop"],
    ["chap-secret=hunter2hunter2 name=x", "hunter2hunter2"],
    ['{"password":"hunter2"}', "hunter2"],
    ["fetch https://user:hunter2@host/path", "hunter2"],
    ["BOOT_IMAGE=x keelson.answers=eyJhIjoxfQ== quiet", "eyJhIjoxfQ"],
    ["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "AAAA"],
  ])("%j loses its secret", (text, secret) => {
    expect(redact(text)).toContain(redacted);
    expect(redact(text)).not.toContain(secret);
  });

  test("lines without a secret stay as they are", () => {
    const text =
      '06:11:02 api[5]: log-in refused user=admin address=192.0.2.7 why="Wrong user name"';
    expect(redact(text)).toBe(text);
  });
});
