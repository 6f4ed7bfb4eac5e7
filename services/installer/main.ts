/** keelson-installer: on the live ISO, as root. */
import { mkdirSync, readFileSync, watch } from "node:fs";
import { networkInterfaces } from "node:os";
import { openConsole } from "#lib/console/console.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { runService } from "#lib/service/main.ts";
import { answersParameter, answersPlace, kernelParameter } from "./answers.ts";
import { runCommand } from "./command.ts";
import { Installer } from "./installer.ts";
import { readImageFacts } from "./medium.ts";

const usage = `Usage: keelson-installer [options]

Installs Keelson from the live medium by an answer file; without one, waits and says what to do.

  --medium DIR     the medium's keelson folder (default /run/keelson-media/keelson)
  --state DIR      not used; the installer keeps nothing
  --run DIR        scratch directory (default /run/keelson-installer)
  --screen PATH    terminal to print to, repeatable (default /dev/tty1 and /dev/ttyS0)
  --help`;

/** An inotify event wakes the loop at once; this finds what made no event. */
const roundMs = 5_000;

await runService({
  name: "keelson-installer",
  usage,
  options: {
    medium: { type: "string", default: "/run/keelson-media/keelson" },
    state: { type: "string" },
    run: { type: "string", default: "/run/keelson-installer" },
    screen: { type: "string", multiple: true, default: ["/dev/tty1", "/dev/ttyS0"] },
  },
  async start({ values, log }) {
    const scratch = values.run;
    mkdirSync(scratch, { recursive: true, mode: 0o700 });
    const console = openConsole(values.screen);
    const line = readFileSync("/proc/cmdline", "utf8");
    let stopped = false;
    let wake = () => {};

    const start = async (): Promise<void> => {
      const image = readImageFacts(values.medium);
      const rootHash =
        kernelParameter(line, "keelson.roothash") ?? kernelParameter(line, "roothash");
      if (rootHash !== undefined && rootHash !== image.rootHash) {
        throw new KeelsonError(
          "FORMAT_CORRUPT",
          "The medium's image.json names another root than the one that was booted.",
          { remedy: "Make the medium again from a fresh download." },
        );
      }
      const parameter = kernelParameter(line, answersParameter);
      const installer = new Installer({
        console,
        run: runCommand,
        image,
        medium: values.medium,
        scratch,
        place: parameter === undefined ? undefined : answersPlace(parameter),
        addresses: liveAddresses,
        nowMs: () => performance.now(),
      });
      for (const folder of ["/dev/disk/by-label", "/dev/disk"]) {
        try {
          watch(folder, () => wake()).unref();
        } catch {
          log.debug("nothing to watch", { folder });
        }
      }
      while (!stopped) {
        const after = await installer.round();
        if (after !== undefined) {
          await runCommand("systemctl", ["--no-block", after]);
          return;
        }
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, roundMs);
          wake = () => {
            clearTimeout(timer);
            // udev has made the link, but may still be busy with the device.
            setTimeout(resolve, 500);
          };
        });
      }
    };
    start().catch((error) => {
      log.error(explainError(error));
      console.print("", `Installation impossible: ${explainError(error)}`);
    });
    return {
      async stop() {
        stopped = true;
        console.close();
      },
    };
  },
});

function liveAddresses(): string[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses]) =>
    (addresses ?? [])
      .filter(({ internal, address }) => !internal && !address.startsWith("fe80:"))
      .map(({ address }) => `${address} (${name})`),
  );
}
