import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { parseUuid, type VolumeId } from "#lib/model/ids.ts";
import { parseSize } from "#lib/model/size.ts";
import { removeStaleSocket, serveUnix } from "#lib/rpc/serve.ts";
import { runService } from "#lib/service/main.ts";
import { createApi } from "./api.ts";
import { type ControlMessage, type ControlReply, unwrapReply } from "./control.ts";
import type { ScrubStep } from "./engine/scrub.ts";
import { NbdServer } from "./nbd-server.ts";
import { RingWorkerClient } from "./ring-worker-client.ts";
import { Scrubber } from "./scrubber.ts";
import type { StoreThreadData } from "./store-thread.ts";

const usage = `Usage: chunk-store --state DIR --run DIR [--device PATH] [options]

Owns one device and serves its volumes on DIR/ring.sock, its control API on DIR/api.sock, and
import and export on DIR/nbd.sock (all in --run).

  --device PATH    a store's file or block device (default: store.img in --state);
                   a blank block device is formatted, anything else is never overwritten
  --create SIZE    makes a store in a sparse file of this size if PATH does not exist: 64G
  --pool ID        pool of a new store; an existing store must belong to it
  --memory SIZE    for map pages (default 64M)
  --direct         data past the page cache: for a device that needs none, and where the memory
                   is wanted for something else
  --no-native      without the addon: slower
  --help`;

function sizeOption(name: string, text: string): number {
  const bytes = parseSize(text);
  if (bytes !== undefined) return bytes;
  throw new KeelsonError("INVALID_ARGUMENT", `--${name} ${text} is not a size.`, {
    remedy: "Give bytes, or a number with K, M, G or T.",
  });
}

await runService({
  name: "keelson-chunk-store",
  usage,
  options: {
    state: { type: "string" },
    run: { type: "string" },
    device: { type: "string" },
    create: { type: "string" },
    pool: { type: "string" },
    memory: { type: "string" },
    direct: { type: "boolean" },
    "no-native": { type: "boolean" },
  },
  async start({ values, log, fail }) {
    const { state, run } = values;
    if (state === undefined || run === undefined) {
      throw new KeelsonError("INVALID_ARGUMENT", "--state and --run are needed.", {
        remedy: "See --help.",
      });
    }
    const pool = values.pool === undefined ? undefined : parseUuid(values.pool);
    if (values.pool !== undefined && pool === undefined) {
      throw new KeelsonError("INVALID_ARGUMENT", `--pool ${values.pool} is not a UUID.`);
    }
    // The thread looks for the addon by itself: this reaches it through the environment.
    if (values["no-native"] === true) process.env.KEELSON_NO_NATIVE = "1";
    mkdirSync(state, { recursive: true, mode: 0o750 });
    mkdirSync(run, { recursive: true, mode: 0o750 });
    const ringPath = join(run, "ring.sock");
    await removeStaleSocket(ringPath);
    const held = new HeldFormatsFile();
    const own: StoreThreadData = {
      path: values.device ?? join(state, "store.img"),
      createBytes: values.create === undefined ? undefined : sizeOption("create", values.create),
      pool,
      memoryBytes: sizeOption("memory", values.memory ?? "64M"),
      format: held.writes("chunk-store"),
      direct: values.direct === true,
      ringPath,
    };
    const thread = await RingWorkerClient.start(new URL("./store-thread.ts", import.meta.url), own);
    thread.onFailure = fail;
    const nbd = await NbdServer.listen({
      path: join(run, "nbd.sock"),
      ringPath,
      log,
      nowMs: () => Date.now(),
    });
    const control = (message: ControlMessage) => thread.call(message) as Promise<ControlReply>;
    const scrubber = new Scrubber({
      file: join(state, "scrub.json"),
      step: async (from) => unwrapReply(await control({ kind: "scrub", from })) as ScrubStep,
      nowMs: () => Date.now(),
      log,
    });
    const app = createApi({
      control,
      scrubber,
      grant: (id, readOnly) => nbd.grant(id as VolumeId, readOnly),
      nowMs: () => Date.now(),
      unexpected: (error) => log.error(`control API: ${error.message}`),
    });
    const api = await serveUnix(app, join(run, "api.sock"));
    const forget = held.onChange(() => {
      const message: ControlMessage = { kind: "format", format: held.writes("chunk-store") };
      thread.call(message).catch((error) => log.warn(explainError(error)));
    });
    log.info("serving", { device: own.path, run });
    return {
      status: `store on ${own.path}`,
      async stop() {
        forget();
        await scrubber.close();
        await api.close();
        await nbd.close();
        await thread.stop();
      },
    };
  },
});
