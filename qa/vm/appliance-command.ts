/**
 * Scenario `appliance`: the command a newcomer types. It installs, forwards the console to port
 * 8443, boots a diskless client from it, powers off on Ctrl-C, and boots the same disk again.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Client } from "#services/api/schema.ts";
import { ApplianceClient, limits } from "./appliance.ts";
import { clientMacs } from "./client.ts";
import type { Scenario } from "./scenario.ts";

const root = resolve(import.meta.dirname, "../..");
const port = 8443;
const clientBootMs = 2_400_000;

interface Ready {
  readonly ready: true;
  readonly url: string;
  readonly user: string;
  readonly password?: string;
  readonly passwordFile: string;
}

export const applianceCommandScenario: Scenario = {
  name: "appliance",
  summary:
    "npm run appliance: console on port 8443, a diskless client, Ctrl-C, the same disk again",
  async run({ step, directory, clients }) {
    const state = join(directory, "state");
    const [firmware] = clients;
    let command: ChildProcess | undefined;
    try {
      command = start(state, directory);
      const first = await step("it installs and prints address and credentials", () =>
        ready(command!, limits.installMs + limits.bootMs),
      );
      await step("log-in through port 8443 works in Chromium", () => screenshot(first));
      await step("Ctrl-C powers it off", () => interrupt(command!));

      command = start(state, directory, "--client", firmware);
      const second = await step("a second run boots the same disk", () =>
        ready(command!, limits.bootMs),
      );
      await step("the password is not printed again", async () => {
        if (second.password === undefined) return;
        throw new KeelsonError("INTERNAL", "The second run printed the password again.");
      });
      await step(`its ${firmware} client boots to its system`, () =>
        waitForSystem(second, clientMacs[firmware]),
      );
      await step("Ctrl-C powers both off", () => interrupt(command!));
    } finally {
      if (command !== undefined) await pullThePlug(command);
    }
  },
};

function start(state: string, directory: string, ...args: string[]): ChildProcess {
  const command = spawn(
    process.execPath,
    [
      "--disable-warning=ExperimentalWarning",
      join(root, "tools/appliance.ts"),
      ...["--json", "--port", String(port), "--state", state],
      ...args,
    ],
    { cwd: root, stdio: ["ignore", "pipe", "pipe"] },
  );
  command.stderr!.pipe(createWriteStream(join(directory, "appliance.log"), { flags: "a" }));
  return command;
}

function ready(command: ChildProcess, timeoutMs: number): Promise<Ready> {
  return new Promise((resolved, rejected) => {
    const fail = (why: string) => rejected(new KeelsonError("UNAVAILABLE", why));
    const timer = setTimeout(() => fail("npm run appliance is not ready in time."), timeoutMs);
    command.once("exit", (code) => fail(`npm run appliance ended with ${code}.`));
    createInterface({ input: command.stdout! }).once("line", (line) => {
      clearTimeout(timer);
      resolved(JSON.parse(line) as Ready);
    });
  });
}

async function screenshot(at: Ready): Promise<void> {
  if (new URL(at.url).port !== String(port)) {
    throw new KeelsonError("INTERNAL", `The console is at ${at.url}, not on port ${port}.`);
  }
  const { logInAndScreenshot } = await import("#qa/ui/browser.ts");
  const password = readFileSync(at.passwordFile, "utf8").trim();
  const out = join(root, "build/screenshots/vm-appliance.png");
  await logInAndScreenshot({ url: at.url, user: at.user, password, out });
}

async function waitForSystem(at: Ready, mac: string): Promise<void> {
  const api = new ApplianceClient(port);
  await api.logIn(readFileSync(at.passwordFile, "utf8").trim());
  const until = Date.now() + clientBootMs;
  for (;;) {
    const clients = await api.call<Client[]>("GET", "/clients");
    const client = clients.find((each) => each.mac === mac);
    if (client?.stage === "os") return;
    if (Date.now() > until) {
      throw new KeelsonError("TIMEOUT", `The client got as far as ${client?.stage ?? "nothing"}.`);
    }
    await sleep(2_000);
  }
}

function interrupt(command: ChildProcess): Promise<void> {
  return new Promise((resolved, rejected) => {
    command.once("exit", (code) => {
      if (code === 0) resolved();
      else rejected(new KeelsonError("INTERNAL", `It ended with ${code}, not 0.`));
    });
    command.kill("SIGINT");
  });
}

/** Two signals end it at once, its machines too: SIGKILL would leave those behind. */
async function pullThePlug(command: ChildProcess): Promise<void> {
  while (command.exitCode === null && command.signalCode === null) {
    command.kill("SIGTERM");
    await sleep(2_500);
  }
}
