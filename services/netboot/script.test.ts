import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { BootAnswer } from "#services/api/boot-schema.ts";
import { echo, pauseSeconds, type ScriptContext, scriptFor } from "./script.ts";

const context: ScriptContext = {
  mac: "52:54:00:12:34:56",
  uuid: "11223344-5566-7788-99aa-bbccddeeff00",
  ip: "10.77.0.100",
  local: "10.77.0.1",
  base: "http://10.77.0.1",
  query: "mac=52:54:00:12:34:56",
  attempt: 0,
  unknownWaitSeconds: 300,
};

/** What iPXE would replace. */
const variable = "$" + "{x}";
const hostile = `s3cr et${variable} && reboot`;

const san: BootAnswer = {
  action: "san",
  portal: "0.0.0.0:3260",
  iqn: "iqn.2026-11.org.keelson:boot.web1",
  lun: 10,
  initiatorIqn: "iqn.2026-11.org.keelson:client.web1",
  chap: { user: "web1", secret: hostile },
};

const anyText = fc.oneof(
  fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
  fc.string({ unit: "grapheme", maxLength: 80 }),
);

describe("scripts", () => {
  test("san: names, CHAP and the portal that the client reached", () => {
    const script = scriptFor(san, context);
    expect(script).toMatch(/^#!ipxe\n/);
    expect(script).toContain("set initiator-iqn iqn.2026-11.org.keelson:client.web1\n");
    expect(script).toContain("set username:hex 77:65:62:31\n");
    expect(script).toContain(
      "sanboot iscsi:10.77.0.1::3260:a:iqn.2026-11.org.keelson:boot.web1 ||\n",
    );
  });

  test("a secret with iPXE syntax in it arrives as bytes, not as commands", () => {
    const script = scriptFor(san, context);
    expect(script).not.toContain("s3cr");
    const bytes = /set password:hex ([0-9a-f:]+)\n/.exec(script)![1].replaceAll(":", "");
    expect(Buffer.from(bytes, "hex").toString()).toBe(hostile);
  });

  test("a name that iPXE could misread is refused, never written", () => {
    for (const iqn of [
      "iqn.2026-11.org:a b",
      `iqn.2026-11.org:${variable}`,
      "iqn.2026-11.org:a\nreboot",
    ]) {
      const script = scriptFor({ ...san, iqn }, context);
      expect(script).not.toContain("sanboot");
      expect(script).toContain("iSCSI name");
    }
  });

  test("unknown: shows MAC, UUID and what to do, asks again, gives up in the end", () => {
    const answer = { action: "unknown", message: "No boot entry." } as const;
    const first = scriptFor(answer, context);
    expect(first).toContain("52:54:00:12:34:56");
    expect(first).toContain("11223344-5566-7788-99aa-bbccddeeff00");
    expect(first).toMatch(/sleep 15\nchain .*attempt=1 /);
    const last = scriptFor(answer, { ...context, attempt: 20 });
    expect(last).not.toContain("chain ");
    expect(last).toMatch(/exit 1\n$/);
  });

  test("every script that asks again waits before it does", () => {
    const answers: BootAnswer[] = [
      san,
      { action: "unknown", message: "x" },
      { action: "error", message: "x" },
    ];
    for (const answer of answers) {
      const lines = scriptFor(answer, { ...context, attempt: 3 }).split("\n");
      const chain = lines.findIndex((line) => line.startsWith("chain "));
      expect(Number(/^sleep (\d+)$/.exec(lines[chain - 1])?.[1])).toBeGreaterThanOrEqual(5);
    }
  });

  test("pauses grow and stay bounded", () => {
    expect([0, 1, 2, 3, 9, 999_999].map(pauseSeconds)).toEqual([5, 10, 20, 30, 30, 30]);
  });

  test("no text becomes more than echo lines, whatever is in it", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        for (const line of echo(text)) {
          expect(line).toMatch(/^echo \| [A-Za-z0-9 .,:/()'_@+=!?%-]{1,74}$/);
        }
      }),
    );
  });

  test("a message never adds a command to a script", () => {
    const commands = [
      "#!ipxe",
      "echo",
      "sleep",
      "chain",
      "set",
      "sanboot",
      "clear",
      "reboot",
      "exit",
    ];
    fc.assert(
      fc.property(anyText, (message) => {
        const plain = scriptFor({ action: "error", message: "x" }, context);
        const script = scriptFor({ action: "error", message }, context);
        const others = (text: string) =>
          text.split("\n").filter((line) => !line.startsWith("echo"));
        expect(others(script)).toEqual(others(plain));
        for (const line of script.trim().split("\n"))
          expect(commands).toContain(line.split(" ")[0]);
      }),
    );
  });
});
