/** keelson-iscsi-target: arguments and sockets. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import { loadSecretKey } from "#lib/seal/secret-key.ts";
import { runService } from "#lib/service/main.ts";
import { createApi } from "./api.ts";
import type { PortalAddress } from "./driver.ts";
import { IscsiTarget } from "./target.ts";

const version = "2026.11.0";

const usage = `Usage: iscsi-target --state DIR --run DIR [options]

Serves volumes of the chunk store as iSCSI targets.
  --state DIR         what it was last told to serve
  --run DIR           control socket api.sock
  --store-run DIR     chunk-store's run directory, with ring.sock (default: ../chunk-store beside --run)
  --portal HOST:PORT  listen here (repeatable; default 0.0.0.0:3260; port 0 = a free one)
  --secret-key FILE   32 bytes that its state is sealed with (default STATE/secret.key, made at the
                      first start: for development)
  --no-native         run without the addon
  --help`;

function required(value: string | undefined, flag: string): string {
  if (value !== undefined && value !== "") return value;
  throw new KeelsonError("INVALID_ARGUMENT", `--${flag} is missing.`, { remedy: "See --help." });
}

/** `10.0.0.1:3260`, `[::]:3260`. */
function portalOf(text: string): PortalAddress {
  const match = /^(\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:.]+\]):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match !== null && port <= 65_535) return { host: match[1].replace(/^\[|\]$/g, ""), port };
  throw new KeelsonError("INVALID_ARGUMENT", `--portal ${text} is not ADDRESS:PORT.`, {
    remedy: "Give one like 0.0.0.0:3260 or [::]:3260.",
  });
}

await runService({
  name: "iscsi-target",
  usage,
  options: {
    state: { type: "string" },
    run: { type: "string" },
    "store-run": { type: "string" },
    "secret-key": { type: "string" },
    portal: { type: "string", multiple: true },
    "no-native": { type: "boolean", default: false },
  },
  async start({ values, log, fail }) {
    const stateDir = required(values.state, "state");
    const runDir = required(values.run, "run");
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const target = await IscsiTarget.start({
      stateDir,
      storeRun: values["store-run"] ?? join(runDir, "../chunk-store"),
      portals: (values.portal ?? ["0.0.0.0:3260"]).map(portalOf),
      native: !values["no-native"],
      version,
      box: loadSecretKey(values["secret-key"], stateDir).box,
      log,
      fail,
    });
    const api = createApi(target, (error) => log.error(error.message));
    const listener = await serveUnix(api, join(runDir, "api.sock"));
    return {
      addresses: { portal: target.portals[0] },
      healthy: () => target.healthy,
      async stop() {
        await listener.close();
        await target.stop();
      },
    };
  },
});
