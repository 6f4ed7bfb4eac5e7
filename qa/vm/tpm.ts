/**
 * Scenario `tpm`: an installed node whose machine gets a TPM 2.0, loses it to another one, and has
 * it back. Its secrets are sealed to the chip, locked without it, and open again with it.
 */

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Condition, ExportCreated, Volume } from "#services/api/schema.ts";
import { ApplianceClient, type ApplianceOptions, limits, startAppliance } from "./appliance.ts";
import { expectThat } from "./expectation.ts";
import { copyDisk } from "./installations.ts";
import { type Firmware, freePort, type Machine } from "./machine.ts";
import type { Scenario, ScenarioContext } from "./scenario.ts";
import { createSegment } from "./segment.ts";
import { SoftwareTpm } from "./software-tpm.ts";

const settleMs = 120_000;
const pollMs = 1_000;

export const tpmScenario: Scenario = {
  name: "tpm",
  summary: "secrets sealed to a TPM 2.0: turned on late, exchanged, and brought back",
  async run(context) {
    for (const firmware of context.firmwares) {
      await context.group(firmware === "bios" ? "SeaBIOS" : "OVMF", () =>
        sealed(firmware, context),
      );
    }
  },
};

async function sealed(firmware: Firmware, context: ScenarioContext): Promise<void> {
  const { step, directory } = context;
  const { disk, password } = await step("an installation of the present release", () =>
    context.installations.get(firmware, context),
  );
  const segment = await createSegment(join(directory, `${firmware}.hub`));
  const options: ApplianceOptions = {
    name: firmware,
    directory,
    disk: join(directory, `${firmware}.raw`),
    firmware,
    acceleration: context.acceleration.acceleration,
    httpsPort: await freePort(),
    segment,
    ...(context.verbose ? { onLine: (line: string) => context.note(line) } : {}),
  };
  copyDisk(disk, options.disk);
  const client = new ApplianceClient(options.httpsPort);
  /** One life of the machine, with the chip whose state is in the folder `chip`. */
  const live = async (chip: string | null, run: () => Promise<void>) => {
    const tpm = chip === null ? undefined : await SoftwareTpm.start(join(directory, chip));
    let machine: Machine | undefined;
    try {
      machine = await startAppliance({ ...options, extra: tpm?.arguments ?? [] });
      await client.waitUntilUp(machine, limits.bootMs);
      await client.logIn(password);
      await run();
      expectThat(await machine.powerOff(limits.stopMs), "it does not power off");
    } finally {
      await machine?.kill();
      await tpm?.close();
    }
  };
  try {
    await step("without a TPM its secrets are weakly sealed, and that is said", () =>
      live(null, async () => {
        await expectCondition(client, "SECRETS_WEAKLY_SEALED", true);
        const volume = await client.call<Volume>("POST", "/volumes", {
          ...{ name: "kept", sizeBytes: 2 ** 24 },
        });
        const { chapSecret } = await client.call<ExportCreated>("POST", "/exports", {
          ...{ name: "kept", volumeId: volume.id },
          initiators: ["iqn.2026-11.org.example:client"],
        });
        expectThat(chapSecret !== null, "the export has no secret");
      }),
    );
    await step("a TPM that is turned on seals them from that start on", () =>
      live("chip-1", async () => {
        await expectCondition(client, "SECRETS_WEAKLY_SEALED", false);
        await expectCondition(client, "SECRETS_LOCKED", false);
      }),
    );
    await step("with another TPM the node runs, and what is locked is named", () =>
      live("chip-2", async () => {
        const { reason } = await expectCondition(client, "SECRETS_LOCKED", true);
        context.note(reason);
      }),
    );
    await step("with its own TPM back everything opens", () =>
      live("chip-1", async () => {
        await expectCondition(client, "SECRETS_LOCKED", false);
        await expectCondition(client, "SECRETS_WEAKLY_SEALED", false);
      }),
    );
  } finally {
    await segment.close();
  }
}

/** Waits until the node says of a fault whether it is there; a fault that isn't listed is not. */
async function expectCondition(
  client: ApplianceClient,
  code: string,
  there: boolean,
): Promise<Condition> {
  const until = Date.now() + settleMs;
  for (;;) {
    const all = await client.call<Condition[]>("GET", "/conditions");
    const found = all.filter((each) => each.code === code);
    const faulty = found.find(({ status }) => status === "true");
    if ((faulty !== undefined) === there) return faulty ?? found[0];
    if (Date.now() > until) {
      const said = JSON.stringify(found);
      throw new KeelsonError("INTERNAL", `${code} is ${there ? "not " : ""}there: ${said}`);
    }
    await sleep(pollMs);
  }
}
