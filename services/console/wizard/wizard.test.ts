import xterm from "@xterm/headless";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseAnswerFile } from "#lib/answer-file/answer-file.ts";
import type { Key, KeyName } from "#lib/terminal/keys.ts";
import { KeyParser } from "#lib/terminal/keys.ts";
import { paint } from "#lib/terminal/paint.ts";
import type { InstallerView } from "#services/installer/schema.ts";
import { fitGrid } from "../form-view.ts";
import { setupContent } from "../setup.ts";
import { answersText } from "./answers.ts";
import { passwordStrength } from "./password.ts";
import {
  initialWizard,
  transition,
  type WizardEffect,
  type WizardEvent,
  type WizardState,
} from "./wizard.ts";

const pool = { id: "5f0c1de2-0b7a-4a51-9c57-2f6d1f7a9e10", name: "" };
const view: InstallerView = {
  ...{ sequence: 1, version: "2026.11.0", developmentKey: false, ready: true, attended: false },
  addresses: ["192.0.2.57 (enp1s0)"],
  interfaces: [
    { name: "enp1s0", mac: "52:54:00:00:00:01", carrier: true, addresses: ["192.0.2.57/24"] },
    { name: "enp2s0", mac: "52:54:00:00:00:02", carrier: true, addresses: [] },
    { name: "enp3s0", mac: "52:54:00:00:00:03", carrier: false, addresses: [] },
  ],
  disks: [
    {
      ...{ path: "/dev/nvme0n1", sizeBytes: 500_107_862_016, model: "Samsung SSD 980 PRO 500GB" },
      ...{ serial: "S5GYNG0R104531T", medium: false, readOnly: false },
      contents: [
        { text: "vfat on /dev/nvme0n1p1, 512 MiB", pool: null },
        { text: `Keelson pool ${pool.id} on /dev/nvme0n1p8`, pool },
      ],
    },
    {
      ...{ path: "/dev/sda", sizeBytes: 2 ** 30, model: "Small", serial: "small-1" },
      ...{ medium: false, readOnly: false, contents: [] },
    },
    {
      ...{ path: "/dev/sdb", sizeBytes: 8_001_563_222_016, model: "ST8000NM000A-2KE101" },
      ...{ serial: "WSD2X0AB", medium: false, readOnly: false, contents: [] },
    },
    {
      ...{ path: "/dev/sdc", sizeBytes: 2 ** 33, model: "Stick", serial: "", medium: true },
      ...{ readOnly: false, contents: [] },
    },
  ],
  ...{ diskFault: null, minimumDiskBytes: 6_000_000_000 },
  phase: { kind: "waiting" },
  lines: [{ number: 0, text: "Answers: none" }],
};

const hash = `$6$abcdefgh$${"a".repeat(86)}`;

/** A console with a person at it: effects are answered as the installer would. */
class Person {
  state: WizardState = initialWizard();
  view: InstallerView = view;
  readonly effects: WizardEffect[] = [];
  #parser = new KeyParser();

  constructor(changes: Partial<InstallerView> = {}) {
    this.look(changes);
  }

  look(changes: Partial<InstallerView>): void {
    this.view = { ...this.view, ...changes, sequence: this.view.sequence + 1 };
    this.send({ kind: "view", view: this.view });
  }

  send(event: WizardEvent): void {
    const { state, effects } = transition(this.state, event);
    this.state = state;
    for (const effect of effects) {
      this.effects.push(effect);
      const answer = this.answer(effect);
      if (answer !== undefined) this.send(answer);
    }
  }

  answer(effect: WizardEffect): WizardEvent | undefined {
    switch (effect.kind) {
      case "attend":
        this.look({ attended: effect.attended });
        return undefined;
      case "hash":
        return { kind: "hashed", request: effect.request, hash };
      case "probe":
        return {
          kind: "probed",
          request: effect.request,
          probes: [
            { what: "Address of the LAN (enp1s0)", ok: true, result: "192.0.2.57/24" },
            { what: "Gateway 192.0.2.1", ok: true, result: "answers" },
            { what: "DNS server 192.0.2.1", ok: false, result: "does not answer" },
          ],
        };
      case "plan":
        return {
          kind: "planned",
          request: effect.request,
          plan: { ok: true, erases: [], keeps: [`Keelson pool ${pool.id} on /dev/nvme0n1p8`] },
        };
      case "listMedia":
        return {
          kind: "media",
          request: effect.request,
          media: [{ device: "/dev/sdd1", label: "STICK", sizeBytes: 2 ** 34 }],
        };
      case "save":
        return { kind: "saved", request: effect.request, place: "keelson-answers.json on STICK" };
      case "install":
        return { kind: "started", request: effect.request };
      case "power":
        return undefined;
    }
  }

  /** Text as it is typed; `<down>` for other keys. */
  type(text: string): this {
    for (const [, name, character] of text.matchAll(/<(\w+)>|(.)/gs)) {
      if (name === undefined) this.bytes(character);
      else this.key(name as KeyName);
    }
    return this;
  }

  key(name: KeyName): void {
    this.send({ kind: "key", key: { kind: "key", name } });
  }

  bytes(text: string | Uint8Array): void {
    for (const key of this.#parser.push(Buffer.from(text as string)))
      this.send({ kind: "key", key });
  }

  lines(): string[] {
    const content = setupContent(this.state);
    return content.kind === "page" ? content.grid.lines() : content.lines.map(({ text }) => text);
  }

  get text(): string {
    return this.lines().join("\n");
  }
}

/** What a terminal of `size` shows, with its cursor as the last line. */
async function shown(person: Person, size = { rows: 24, columns: 80 }): Promise<string> {
  const content = setupContent(person.state);
  if (content.kind !== "page") return `${content.lines.map(({ text }) => text).join("\n")}\n`;
  const terminal = new xterm.Terminal({
    rows: size.rows,
    cols: size.columns,
    allowProposedApi: true,
  });
  const output = paint(undefined, fitGrid(content.grid, size));
  await new Promise<void>((done) => terminal.write(output, done));
  const buffer = terminal.buffer.active;
  const rows = Array.from({ length: size.rows }, (_, row) =>
    (buffer.getLine(row)?.translateToString(true) ?? "").trimEnd(),
  );
  expect(buffer.baseY, "nothing scrolled away").toBe(0);
  return `${rows.join("\n")}\ncursor ${buffer.cursorY},${buffer.cursorX}\n`;
}

const golden = (name: string) => `golden/${name}.txt`;
const toDisk = (person: Person) => person.type("<enter>");
function proceed(person: Person): Person {
  for (let i = 0; i < 40 && person.state.form.focus !== "button:next"; i++) person.key("down");
  return person.type("<enter>");
}
const untilStep = (step: string, person = new Person()): Person => {
  toDisk(person);
  person.type("<down><down> ");
  for (let i = 0; i < 12 && person.state.step !== step; i++) {
    if (person.state.step === "password" && person.state.passwordHash === undefined) {
      person.type("correct horse<enter>correct horse<enter>");
    }
    proceed(person);
  }
  expect(person.state.step).toBe(step);
  return person;
};

describe("golden screens", () => {
  test("welcome", async () => {
    const person = new Person({ developmentKey: true });
    await expect(await shown(person)).toMatchFileSnapshot(golden("welcome"));
  });

  test("welcome after refused answers", async () => {
    const message =
      'The answer file can\'t be used:\n  node.name: "Big" is not a host name\n  disk: is missing';
    const person = new Person({ phase: { kind: "refused", message } });
    await expect(await shown(person)).toMatchFileSnapshot(golden("welcome-refused"));
  });

  test("disk: nothing chosen, and Next pressed", async () => {
    const person = proceed(toDisk(new Person()));
    expect(person.state.step).toBe("disk");
    await expect(await shown(person)).toMatchFileSnapshot(golden("disk-none"));
  });

  test("disk: a pool is kept, the rest must be allowed to go", async () => {
    const person = toDisk(new Person()).type(" ");
    await expect(await shown(person)).toMatchFileSnapshot(golden("disk-pool-kept"));
  });

  test("disk: erasing a pool needs its name", async () => {
    const person = toDisk(new Person()).type(" <down><down><down><right><down>5f0c1d");
    expect(person.state.form.values.pools).toBe("erase");
    proceed(person);
    expect(person.state.step).toBe("disk");
    await expect(await shown(person)).toMatchFileSnapshot(golden("disk-pool-erase"));
  });

  test("disk: too small", async () => {
    const person = proceed(toDisk(new Person()).type("<down> "));
    await expect(await shown(person)).toMatchFileSnapshot(golden("disk-small"));
  });

  test("LAN by DHCP", async () => {
    await expect(await shown(untilStep("network"))).toMatchFileSnapshot(golden("lan-dhcp"));
  });

  test("LAN: fixed address, a bond, and a gateway elsewhere", async () => {
    const person = untilStep("network").type(
      "<right><down>192.0.2.10/24<enter>198.51.100.1<enter>192.0.2.1 9.9.9.9<enter><enter><down> ",
    );
    expect(person.state.form.values.port).toBe("52:54:00:00:00:01");
    proceed(person);
    await expect(await shown(person)).toMatchFileSnapshot(golden("lan-fixed"));
  });

  test("backplane that overlaps the LAN", async () => {
    const person = untilStep("backplane").type("<right><down>192.0.2.130/25<enter>20");
    proceed(person);
    expect(person.state.step).toBe("backplane");
    await expect(await shown(person)).toMatchFileSnapshot(golden("backplane-overlap"));
  });

  test("network test with a silent name server", async () => {
    await expect(await shown(untilStep("test"))).toMatchFileSnapshot(golden("network-test"));
  });

  test("name and time with a half-typed zone", async () => {
    const person = untilStep("time").type("<enter><eraseLine>stock<tab>");
    await expect(await shown(person)).toMatchFileSnapshot(golden("time"));
  });

  test("a very long host name scrolls in its field", async () => {
    const person = untilStep("time").type(`<eraseLine>${"a".repeat(70)}`);
    await expect(await shown(person)).toMatchFileSnapshot(golden("time-long"));
  });

  test("password: different ones", async () => {
    const person = untilStep("password").type("Tr0ub4dor&3<enter>tr0ub4dor&3<enter>");
    await expect(await shown(person)).toMatchFileSnapshot(golden("password"));
  });

  test("summary, saving and showing the answers", async () => {
    const person = untilStep("summary");
    await expect(await shown(person)).toMatchFileSnapshot(golden("summary"));
    person.type("<right><enter>");
    await expect(await shown(person)).toMatchFileSnapshot(golden("save"));
    person.type("<enter>");
    expect(person.text).toContain("Saved: keelson-answers.json on STICK");
    person.type("<escape>").type("<right><enter>");
    expect(person.state.side).toBe("show");
    await expect(await shown(person)).toMatchFileSnapshot(golden("show"));
  });

  test("progress and the end", async () => {
    const person = untilStep("summary").type("<left><enter>");
    person.look({
      phase: {
        kind: "installing",
        percent: 42,
        step: "writing the root file system",
        leftMs: 95_000,
      },
    });
    await expect(await shown(person)).toMatchFileSnapshot(golden("progress"));
    person.look({
      phase: { kind: "done", name: "keelson-1", after: "reboot", tookMs: 65_000, password: null },
    });
    await expect(await shown(person)).toMatchFileSnapshot(golden("done"));
  });

  test("a screen that is too small says what it needs", async () => {
    const person = untilStep("network");
    await expect(await shown(person, { rows: 10, columns: 60 })).toMatchFileSnapshot(
      golden("too-small"),
    );
    await expect(await shown(person, { rows: 30, columns: 100 })).toMatchFileSnapshot(
      golden("larger"),
    );
  });
});

describe("a person", () => {
  test("goes through, and the answers are an answer file", () => {
    const person = untilStep("summary");
    person.type("<left><enter>");
    const install = person.effects.find(({ kind }) => kind === "install");
    expect(install?.kind).toBe("install");
    const { text } = install as { text: string };
    const answers = parseAnswerFile(text, "f");
    expect(answers).toMatchObject({
      node: { name: "keelson-1" },
      disk: { serial: "WSD2X0AB" },
      network: { lan: { interface: "first", address: "dhcp" } },
      admin: { passwordHash: hash },
    });
    expect(text).not.toContain("correct horse");
  });

  test("keeps a pool unless its name was typed", () => {
    const kept = toDisk(new Person()).type(" ");
    expect(answersText(kept.state.form.values, view, hash)).toContain(`"pool": "${pool.id}"`);
    const erased = toDisk(new Person()).type(" <down><down><down><right><down>5f0c1de2<down> ");
    proceed(erased);
    expect(erased.state.step).toBe("network");
    expect(answersText(erased.state.form.values, view, hash)).toContain("erasePools");
  });

  test("bonds two ports with a tagged backplane", () => {
    const person = untilStep("network").type("<down><down><down><down> <down><down><down><down> ");
    proceed(person);
    expect(person.state.step).toBe("backplane");
    person.type("<right><down>10.99.0.1/24<enter>20");
    proceed(person);
    expect(person.state.step).toBe("test");
    const text = answersText(person.state.form.values, view, hash);
    expect(parseAnswerFile(text, "f").network).toMatchObject({
      bonds: [{ name: "bond0", ports: ["52:54:00:00:00:01", "52:54:00:00:00:02"] }],
      lan: { interface: "bond0" },
      backplane: { interface: "lan", vlan: 20, address: "10.99.0.1/24" },
    });
  });

  test("is told of a refusal and comes back to the summary", () => {
    const person = untilStep("summary").type("<left><enter>");
    person.look({ phase: { kind: "installing", percent: 1, step: "verifying", leftMs: null } });
    person.look({ phase: { kind: "refused", message: "The installation medium is damaged." } });
    expect(person.state.step).toBe("summary");
    expect(person.text).toContain("Not installed: The installation medium is damaged.");
    expect(person.state.form.values.disk).toBe("/dev/sdb");
  });

  test("who only looks leaves the unattended installation alone; its lines are shown", () => {
    const person = new Person({
      phase: { kind: "installing", percent: 3, step: "x", leftMs: null },
    });
    expect(person.lines()).toEqual(["Answers: none"]);
    person.type("<enter>");
    expect(person.effects).toEqual([]);
  });

  test("holds the search for answer files while answering, and lets go again at the welcome page", () => {
    const person = toDisk(new Person()).type("<escape>");
    expect(person.state.step).toBe("welcome");
    expect(person.effects).toEqual([
      { kind: "attend", attended: true },
      { kind: "attend", attended: false },
    ]);
  });

  test("after a restart of the installer its answers are still there", () => {
    const person = untilStep("time");
    person.look({ attended: false });
    expect(person.state.step).toBe("time");
    expect(person.effects.at(-1)).toEqual({ kind: "attend", attended: true });
  });

  test("an answer to something older is dropped", () => {
    const person = untilStep("test");
    const { request } = person.state;
    person.type("<escape>");
    person.send({ kind: "probed", request, probes: [] });
    expect(person.state.probes).not.toEqual([]);
  });
});

const names: KeyName[] = [
  ...([
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
  ] as const),
  ...(["enter", "escape", "backspace", "delete", "eraseLine", "eraseWord", "redraw"] as const),
];
const anyKey: fc.Arbitrary<Key> = fc.oneof(
  fc.constantFrom(...names).map((name): Key => ({ kind: "key", name })),
  fc
    .string({ minLength: 1, maxLength: 1, unit: "binary" })
    .map((text): Key => ({ kind: "text", text })),
  fc.constant<Key>({ kind: "text", text: " " }),
);

describe("any keys", () => {
  test("never an exception; always 24 rows of at most 80 columns, with the cursor inside", () => {
    fc.assert(
      fc.property(fc.array(anyKey, { maxLength: 150 }), (keys) => {
        const person = new Person();
        for (const key of keys) {
          person.send({ kind: "key", key });
          const content = setupContent(person.state);
          if (content.kind !== "page") continue;
          const { cursor, rows, columns } = content.grid;
          expect([rows, columns]).toEqual([24, 80]);
          expect(cursor.row).toBeGreaterThanOrEqual(0);
          expect(cursor.row).toBeLessThan(24);
          expect(cursor.column).toBeGreaterThanOrEqual(0);
          expect(cursor.column).toBeLessThan(80);
        }
      }),
      { numRuns: 150 },
    );
  });

  test("back and forth between pages loses nothing that was typed", () => {
    const moves = fc.array(fc.constantFrom("back", "next"), { maxLength: 14 });
    fc.assert(
      fc.property(
        fc.stringMatching(/^[ -~]{0,40}$/),
        fc.stringMatching(/^[a-z]{1,20}$/),
        moves,
        (zone, name, steps) => {
          const person = untilStep("time").type("<eraseLine>");
          person.bytes(name);
          person.type("<enter><eraseLine>");
          person.bytes(zone);
          const { values } = person.state.form;
          expect(values).toMatchObject({ "node.name": name, timeZone: zone });
          for (const step of steps) {
            if (step === "back") person.key("escape");
            else proceed(person);
            if (person.state.step === "progress") break;
          }
          expect(person.state.form.values).toMatchObject({ ...values, disk: "/dev/sdb" });
        },
      ),
      { numRuns: 60 },
    );
  });
});

test.each([
  ["aaaaaaaa", "weak"],
  ["password1", "weak"],
  ["Tr0ub4dor&3", "good"],
  ["correct horse battery", "strong"],
])("strength of %j is %s", (password, strength) => {
  expect(passwordStrength(password)).toBe(strength);
});
