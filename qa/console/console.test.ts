import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseAnswerFile } from "#lib/answer-file/answer-file.ts";
import { PtyLine } from "./pty.ts";
import { startSimulatedInstaller } from "./simulated-installer.ts";

const main = resolve(import.meta.dirname, "../../services/console/main.ts");
const down = "\x1b[B";
const right = "\x1b[C";

let folder: string;
let installer: Awaited<ReturnType<typeof startSimulatedInstaller>>;
let lines: PtyLine[];
let service: ChildProcess;

async function start(count = 1): Promise<void> {
  lines = await Promise.all(Array.from({ length: count }, () => PtyLine.open()));
  service = spawn(
    process.execPath,
    [
      ...["--disable-warning=ExperimentalWarning", main, "--setup"],
      ...["--installer", join(folder, "api.sock")],
      ...lines.flatMap(({ path }) => ["--line", path]),
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "keelson-console-"));
  installer = await startSimulatedInstaller(join(folder, "api.sock"));
});

afterEach(async () => {
  const ended = new Promise((done) => service.once("close", done));
  if (service.exitCode === null) {
    service.kill("SIGTERM");
    await ended;
  }
  for (const line of lines) await line.close();
  await installer.close();
  rmSync(folder, { recursive: true, force: true });
});

describe("the wizard on a serial line of 80x24", () => {
  test("is answered from the first page to the summary, and saved", async () => {
    await start();
    const [line] = lines;
    await line.see(/>\[ Set up this machine \]/);
    line.type("\r");
    await line.see(/Step 1 of 7: Disk/);
    line.type(`${down}${down} `);
    await line.see(/On \/dev\/sdb: nothing/);
    line.type("\t\r");
    await line.see(/Step 2 of 7: LAN/);
    line.type(`${right}${down}192.0.2.10/24\r192.0.2.1\r\r20`);
    await line.see(/VLAN number +\[20_/);
    line.type(`${down.repeat(5)}\r`);
    await line.see(/Step 3 of 7: Backplane/);
    line.type("\x1b");
    await line.see(/Address\/prefix +\[192\.0\.2\.10\/24/);
    line.type(`${down.repeat(9)}\r`);
    await line.see(/Step 3 of 7: Backplane/);
    line.type("\t\r");
    await line.see(/FAILED +DNS server/);
    line.type("\r");
    await line.see(/Step 5 of 7/);
    line.type("\x15storage-7\rEurope/Stockholm\x7f\x08lm\r\r\r");
    await line.see(/! .*is not a time zone/);
    line.type("\x15Europe/Stockholm\r\r\r");
    await line.see(/Step 6 of 7/);
    const password = randomBytes(9).toString("base64url");
    line.type(`${password}\r${password}\r\r`);
    await line.see(
      /Host name +storage-7\n[\s\S]*LAN +the first port, VLAN 20\n[\s\S]*Erases nothing/,
    );
    expect(line.received).not.toContain(password);
    line.type(`${right}\r`);
    await line.see(/\/dev\/sdd1 .* STICK/);
    line.type("\x1b");
    await line.see(/Step 7 of 7/);
    line.type(`${right}\r`);
    await line.see(/"name": "storage-7"/);
    line.type("\x1b");
    await line.see(/Step 7 of 7/);
    const given: string[] = [];
    installer.installer.give = (text) => void given.push(text);
    line.type(`${"\x1b[D".repeat(3)}\r`);
    await expect.poll(() => given.length).toBe(1);
    expect(parseAnswerFile(given[0], "given")).toMatchObject({
      node: { name: "storage-7" },
      disk: { serial: "WSD2X0AB" },
      network: { lan: { vlan: 20, address: "192.0.2.10/24", gateway: "192.0.2.1" } },
      timeZone: "Europe/Stockholm",
    });
  });

  test("what one line does the others show; one that hangs up takes nothing with it", async () => {
    await start(2);
    const [serial, screen] = lines;
    await serial.see(/Set up this machine/);
    serial.type("\r");
    await screen.see(/Step 1 of 7/);
    serial.type(`${down}${down} `);
    await screen.see(/\(\*\) \/dev\/sdb/);
    await serial.close();
    screen.type("\t\r");
    await screen.see(/Step 2 of 7/);
    screen.type("\x1b");
    await screen.see(/\(\*\) \/dev\/sdb/);
    expect(service.exitCode).toBeNull();
  });

  test("a terminal that became smaller is told so, and goes on where it was", async () => {
    await start();
    const [line] = lines;
    await line.see(/Set up this machine/);
    line.type("\r");
    await line.see(/Step 1 of 7/);
    line.terminal.resize(60, 12);
    line.type("\x0c");
    await line.see(/This screen is 60x12\.\nKeelson needs 80x24\./);
    line.terminal.resize(100, 30);
    line.type("\x0c");
    await line.see(/Step 1 of 7/);
    expect(line.lines[3]).toMatch(/^ {11}Keelson 2026\.11\.0/);
  });

  test("what something else writes over the page goes away with the next key after a pause", async () => {
    await start();
    const [line] = lines;
    await line.see(/Set up this machine/);
    line.type("\t");
    await line.see(/>\[ Restart \]/);
    const clean = line.text;
    line.terminal.write("\r\n[ 12.3] kernel: noise\r\nmore noise\r\n");
    await line.see(/noise/);
    await sleep(5_500);
    line.type("\x1b[Z");
    await line.see(/>\[ Set up/);
    line.type("\t");
    await line.see(/>\[ Restart \]/);
    expect(line.text).toBe(clean);
  });

  test("random bytes end neither the service nor what it can be told afterwards", async () => {
    await start();
    const [line] = lines;
    await line.see(/Set up this machine/);
    // No line ends: they could reach Restart.
    const noise = Array.from(randomBytes(3000), (byte) => (byte === 13 || byte === 10 ? 7 : byte));
    line.type(Buffer.from(noise).toString("latin1").replaceAll(" ", "x"));
    await sleep(800);
    line.type("\x18\x0c");
    await line.see(/Keelson 2026\.11\.0 +(?:Setup|Step)/);
    expect(service.exitCode).toBeNull();
  });

  test("an unattended installation is told in lines, then refused: the wizard is there", async () => {
    await start();
    const [line] = lines;
    await line.see(/Set up this machine/);
    installer.board.change({
      phase: { kind: "installing", percent: 0, step: "verifying the medium", leftMs: null },
    });
    installer.board.say("Answers: keelson-answers.json on KEELSON-SEED", "    5 %  verifying");
    await line.see(/^Answers: keelson-answers\.json on KEELSON-SEED\n {4}5 % {2}verifying$/m);
    installer.board.change({ phase: { kind: "refused", message: "No disk matches." } });
    await line.see(/Answers refused: No disk matches\./);
    await line.see(/Set up this machine/);
  });
});
