/**
 * Scenario `netboot`: diskless machines boot an ordinary Debian 13 from the installed appliance's
 * chunk store, write, lose power together with the appliance, and find what they wrote.
 */
import { randomBytes } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import type { BootEntry, Client, Image } from "#services/api/schema.ts";
import { ApplianceClient, type ApplianceOptions, limits, startAppliance } from "./appliance.ts";
import { clientMacs, logInToClient, runOnClient, startClient } from "./client.ts";
import { clientImage } from "./client-image.ts";
import { servingState } from "./installations.ts";
import { type Firmware, freePort, type Machine } from "./machine.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import { createSegment, type Segment } from "./segment.ts";

const screenshots = resolve(import.meta.dirname, "../../build/screenshots");
const clientBootMs = 2_400_000;
const importMs = 900_000;
const stages = ["dhcp", "loader", "script", "san", "os"] as const;

export const netbootScenario: Scenario = {
  name: "netboot",
  summary: "diskless clients boot Debian 13 from the appliance; power cuts lose nothing",
  prepare: () => clientImage(),
  async run(context) {
    const { directory } = context;
    const segment = await createSegment(join(directory, "hub"));
    const machines = new Set<Machine>();
    try {
      await netboot(context, segment, machines);
    } finally {
      await Promise.all([...machines].map((machine) => machine.kill()));
      await segment.close();
    }
  },
};

async function netboot(
  context: ScenarioContext,
  segment: Segment,
  machines: Set<Machine>,
): Promise<void> {
  const { step, directory, acceleration } = context;
  // Made while the appliance starts.
  const building = clientImage();
  building.catch(() => {});
  // The appliance's own firmware is what scenario install is about.
  const ownFirmware = "uefi";
  const node = await step("the appliance is installed", () =>
    context.installations.take(ownFirmware, context, "appliance"),
  );
  const options: ApplianceOptions = {
    name: "appliance",
    directory,
    disk: node.disk,
    diskFormat: "qcow2",
    variables: node.variables,
    firmware: ownFirmware,
    acceleration: acceleration.acceleration,
    httpsPort: await freePort(),
    segment,
    ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
  };
  const api = new ApplianceClient(options.httpsPort);
  const boot = async (state?: string) => {
    const machine = await startAppliance({ ...options, ...(state === undefined ? {} : { state }) });
    machines.add(machine);
    await api.waitUntilUp(machine, limits.bootMs);
    await api.logIn(node.password);
    return machine;
  };
  const start = async (firmware: Firmware, name: string) => {
    const machine = await startClient({
      name,
      directory,
      firmware,
      acceleration: acceleration.acceleration,
      segment,
    });
    machines.add(machine);
    return machine;
  };

  let appliance = await step(
    node.state === undefined ? "it boots and its API answers" : "it goes on, and its API answers",
    () => boot(node.state),
  );
  const image = await step("the client's disk: an ordinary Debian 13", () => building);
  const imageId = await step("the image is uploaded and imported", () => importImage(api, image));
  for (const firmware of context.clients) {
    await step(`a boot entry binds the ${firmware} client's MAC to the image`, () =>
      api.call<BootEntry>("POST", "/boot-entries", {
        name: `client-${firmware}`,
        imageId,
        mac: clientMacs[firmware],
      }),
    );
  }
  const marks = new Map<Firmware, string>();
  const running: Machine[] = [];
  for (const firmware of context.clients) {
    const client = await start(firmware, `client-${firmware}`);
    running.push(client);
    await step(`the ${firmware} client boots Debian to multi-user`, () =>
      logInToClient(client, clientBootMs),
    );
    await step(`the ${firmware} client has / on the LUN`, () => checkRoot(client));
    await step(`every stage of the ${firmware} client's boot was seen through the API`, () =>
      checkStages(api, firmware),
    );
    await step(`the ${firmware} client writes and syncs a file`, async () => {
      const mark = randomBytes(12).toString("hex");
      marks.set(firmware, mark);
      await runOnClient(client, `echo ${mark} >/root/mark && sync /root/mark`);
    });
  }
  await step("a screenshot of the console is kept", () => keepScreenshot(api, node.password));
  await step("clients and appliance lose power", async () => {
    await Promise.all([...running, appliance].map((machine) => machine.kill()));
  });
  appliance = await step("the appliance boots again", () => boot());
  await appliance.saveState(servingState);
  for (const firmware of context.clients) {
    const client = await start(firmware, `client-${firmware}-again`);
    await step(`the ${firmware} client boots again and finds its file`, async () => {
      await logInToClient(client, clientBootMs);
      const found = await runOnClient(client, "cat /root/mark");
      if (found !== marks.get(firmware)) {
        throw new KeelsonError("INTERNAL", `It reads '${found}', not '${marks.get(firmware)}'.`);
      }
    });
    await client.kill();
  }
  await step("the appliance shuts down cleanly", async () => {
    if (!(await appliance.powerOff(limits.stopMs))) {
      throw new KeelsonError("TIMEOUT", `It did not power off. ${appliance.serial.tail(30)}`);
    }
  });
  context.installations.keepServing(ownFirmware, node);
}

/** Uploads a disk image and waits until it is ready; the id. */
export async function importImage(
  api: ApplianceClient,
  path: string,
  name = "debian-13",
  onState: (text: string) => void = () => {},
): Promise<string> {
  const created = await api.call<Image>("POST", "/images", { name, format: "qcow2" });
  await api.upload(`/images/${created.id}/data`, createReadStream(path), statSync(path).size);
  const until = Date.now() + importMs;
  for (;;) {
    const image = await api.call<Image>("GET", `/images/${created.id}`);
    if (image.state === "ready") return image.id;
    if (image.state === "failed") {
      throw new KeelsonError("INTERNAL", `The import failed: ${image.failure}`);
    }
    if (Date.now() > until) {
      throw new KeelsonError("TIMEOUT", `The image is still ${image.state} after 15 minutes.`);
    }
    onState(image.state);
    await sleep(2_000);
  }
}

async function checkRoot(client: Machine): Promise<void> {
  const source = await runOnClient(client, "findmnt -no SOURCE /");
  const disk = await runOnClient(
    client,
    "lsblk -sno NAME,TYPE,VENDOR,TRAN $(findmnt -no SOURCE /) | tail -1",
  );
  if (!/iscsi/.test(disk)) {
    throw new KeelsonError("INTERNAL", `/ is ${source}, on a disk that isn't iSCSI: ${disk}`);
  }
  const state = await runOnClient(client, "systemctl is-active multi-user.target");
  if (state !== "active") throw new KeelsonError("INTERNAL", `multi-user.target is ${state}.`);
}

async function checkStages(api: ApplianceClient, firmware: Firmware): Promise<void> {
  const until = Date.now() + 60_000;
  for (;;) {
    const clients = await api.call<Client[]>("GET", "/clients");
    const client = clients.find(({ mac }) => mac === clientMacs[firmware]);
    const seen = client?.stages.map(({ stage }) => stage) ?? [];
    // QEMU's ROM is iPXE already: nothing has to be loaded by TFTP.
    const wanted = firmware === "bios" ? stages.filter((stage) => stage !== "loader") : stages;
    const missing = wanted.filter((stage) => !seen.includes(stage));
    if (missing.length === 0) return;
    if (Date.now() > until) {
      throw new KeelsonError(
        "INTERNAL",
        `Not seen: ${missing.join(", ")}; seen: ${seen.join(", ") || "nothing"}.`,
      );
    }
    await sleep(1_000);
  }
}

async function keepScreenshot(api: ApplianceClient, password: string): Promise<void> {
  const { logInAndScreenshot } = await import("#qa/ui/browser.ts");
  const out = join(screenshots, "vm-clients.png");
  await logInAndScreenshot({ url: api.url, user: "admin", password, page: "/clients", out });
}
