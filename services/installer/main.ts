/** keelson-installer: on the live ISO, as root. */
import { mkdirSync, readFileSync, watch } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import { runService } from "#lib/service/main.ts";
import { answersParameter, answersPlace, kernelParameter } from "./answers.ts";
import { createFaultApp, createInstallerApp } from "./api.ts";
import { Board } from "./board.ts";
import { runCommand } from "./command.ts";
import { Installer } from "./installer.ts";
import { type ImageFacts, readImageFacts } from "./medium.ts";
import { viewPorts } from "./ports.ts";

const usage = `Usage: keelson-installer [options]

Installs Keelson from the live medium, by an answer file or by what the console's wizard gives it
on its socket.

  --medium DIR     the medium's keelson folder (default /run/keelson-media/keelson)
  --state DIR      not used; the installer keeps nothing
  --run DIR        scratch directory, and api.sock (default /run/keelson-installer)
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
  },
  async start({ values, log }) {
    const scratch = values.run;
    mkdirSync(scratch, { recursive: true, mode: 0o700 });
    const line = readFileSync("/proc/cmdline", "utf8");
    let stopped = false;
    let woken = false;
    let resume = () => {};
    const wake = () => {
      woken = true;
      resume();
    };
    const unexpected = (error: Error) => log.error("unexpected error", { why: error.message });
    const socket = join(scratch, "api.sock");
    const board = new Board({
      version: "",
      developmentKey: true,
      addresses: [],
      interfaces: [],
      disks: [],
      diskFault: null,
      minimumDiskBytes: 0,
      ready: false,
      attended: false,
      phase: { kind: "waiting" },
    });
    /** Nothing can be installed, whatever the answers: told on every screen, for ever. */
    const giveUp = (error: unknown) => {
      log.error(explainError(error));
      const message = `Installation impossible: ${explainError(error)}`;
      board.change({ ready: true, phase: { kind: "refused", message } });
      board.say("", message);
    };
    let image: ImageFacts;
    try {
      image = readMedium(values.medium, line);
    } catch (error) {
      giveUp(error);
      const listener = await serveUnix(createFaultApp(board, unexpected), socket);
      return { stop: () => listener.close() };
    }
    board.change({
      version: image.version,
      developmentKey: image.developmentKey ?? true,
      minimumDiskBytes: image.minimumDiskBytes,
    });
    const installer = new Installer({
      board,
      run: runCommand,
      image,
      medium: values.medium,
      scratch,
      place: () => {
        const parameter = kernelParameter(line, answersParameter);
        return parameter === undefined ? undefined : answersPlace(parameter);
      },
      addresses: liveAddresses,
      ports: viewPorts,
      nowMs: () => performance.now(),
      wake,
    });
    for (const folder of ["/dev/disk/by-label", "/dev/disk"]) {
      try {
        // udev has made the link, but may still be busy with the device.
        watch(folder, () => setTimeout(wake, 500)).unref();
      } catch {
        log.debug("nothing to watch", { folder });
      }
    }
    const listener = await serveUnix(createInstallerApp(installer, unexpected), socket);
    const start = async (): Promise<void> => {
      while (!stopped) {
        woken = false;
        const after = await installer.round();
        if (after !== undefined) {
          await runCommand("systemctl", ["--no-block", after]);
          return;
        }
        await new Promise<void>((resolve) => {
          if (woken) return resolve();
          const timer = setTimeout(resolve, roundMs);
          resume = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
    };
    start().catch(giveUp);
    return {
      async stop() {
        stopped = true;
        wake();
        await listener.close();
      },
    };
  },
});

/** FORMAT_CORRUPT if the medium is damaged or isn't the one that was booted. */
function readMedium(medium: string, kernelLine: string): ImageFacts {
  const image = readImageFacts(medium);
  const rootHash =
    kernelParameter(kernelLine, "keelson.roothash") ?? kernelParameter(kernelLine, "roothash");
  if (rootHash === undefined || rootHash === image.rootHash) return image;
  throw new KeelsonError(
    "FORMAT_CORRUPT",
    "The medium's image.json names another root than the one that was booted.",
    { remedy: "Make the medium again from a fresh download." },
  );
}

function liveAddresses(): string[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses]) =>
    (addresses ?? [])
      .filter(({ internal, address }) => !internal && !address.startsWith("fe80:"))
      .map(({ address }) => `${address} (${name})`),
  );
}
