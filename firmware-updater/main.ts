/** keelson-firmware-updater: arguments and socket. */
import { join } from "node:path";
import { releasePath } from "#lib/bundle/release.ts";
import { imageTrustPath } from "#lib/bundle/trust.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import { runService } from "#lib/service/main.ts";
import { createApi } from "./api.ts";
import { Updater } from "./updater.ts";

const usage = `Usage: firmware-updater --state DIR --run DIR [options]

Upgrades this node: writes the other slot, has it tried, keeps it or lets the old one come back.
  --state DIR           state.json, spool, incoming
  --run DIR             control socket api.sock
  --esp DIR             where the boot disk's ESP is mounted (default /run/keelson/esp)
  --boot-disk FILE      names the boot disk (default /run/keelson/boot-disk)
  --attempts FILE       lines of boots (default /var/lib/keelson/boot-attempts)
  --sticks DIR          where sticks are mounted (default /run/keelson/sticks)
  --trust FILE          whose bundles are taken (default ${imageTrustPath})
  --release FILE        what this version says of itself (default ${releasePath})
  --store-run DIR       chunk-store's run directory (default /run/keelson/chunk-store)
  --store-device PATH   its device, of which the health gate reads a block
  --https-port N        where api answers (default 443)
  --help`;

function required(value: string | undefined, flag: string): string {
  if (value !== undefined) return value;
  throw new KeelsonError("INVALID_ARGUMENT", `--${flag} is missing.`, { remedy: "See --help." });
}

await runService({
  name: "firmware-updater",
  usage,
  options: {
    state: { type: "string" },
    run: { type: "string" },
    esp: { type: "string", default: "/run/keelson/esp" },
    "boot-disk": { type: "string", default: "/run/keelson/boot-disk" },
    attempts: { type: "string", default: "/var/lib/keelson/boot-attempts" },
    sticks: { type: "string", default: "/run/keelson/sticks" },
    trust: { type: "string", default: imageTrustPath },
    release: { type: "string", default: releasePath },
    "store-run": { type: "string", default: "/run/keelson/chunk-store" },
    "store-device": { type: "string" },
    "https-port": { type: "string", default: "443" },
  },
  async start({ values, log }) {
    const run = required(values.run, "run");
    const httpsPort = Number(values["https-port"]);
    if (!Number.isInteger(httpsPort) || httpsPort < 1 || httpsPort > 65_535) {
      throw new KeelsonError(
        "INVALID_ARGUMENT",
        `--https-port ${values["https-port"]} is no port.`,
      );
    }
    const updater = await Updater.start({
      state: required(values.state, "state"),
      run,
      esp: values.esp,
      bootDiskFile: values["boot-disk"],
      attemptsFile: values.attempts,
      sticks: values.sticks,
      trustFile: values.trust,
      releaseFile: values.release,
      storeSocket: join(values["store-run"], "api.sock"),
      storeDevice: values["store-device"] ?? null,
      httpsPort,
      log,
    });
    const app = createApi(updater, (error) => log.error(`control API: ${error.stack}`));
    const listener = await serveUnix(app, join(run, "api.sock"));
    log.info(`ready: ${updater.describe()}`);
    return {
      status: updater.describe(),
      async stop() {
        await listener.close();
        await updater.stop();
      },
    };
  },
});
