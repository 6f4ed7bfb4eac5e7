/**
 * An updater as it runs on a node, over files instead of a disk: real state, spool, sources, socket;
 * only what the machine says of itself is given. For tests.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { productionTrust } from "#lib/bundle/bundle.fixture.ts";
import { dataFormats } from "#lib/data-format/formats.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import { createLog } from "#lib/service/log.ts";
import { createApi } from "./api.ts";
import { simDiskPath, simEsp, simInstalled, simRelease } from "./sim-disk.ts";
import { emptyState } from "./state.ts";
import { Updater } from "./updater.ts";

export const fixtureVersion = "2026.11.0";

export interface FixtureUpdater {
  readonly updater: Updater;
  stop(): Promise<void>;
}

/** `fixtureVersion` in slot A, kept; its socket is `<run>/api.sock`. */
export async function startUpdater(folder: string, run: string): Promise<FixtureUpdater> {
  const state = join(folder, "state");
  const release = simRelease(fixtureVersion);
  const { version, rootHash } = release;
  const disk = join(folder, "disk");
  const put = (path: string, content: string | Buffer) => {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  };
  for (const [path, bytes] of simInstalled(release).contents()) {
    const index = path.startsWith(`${simDiskPath}#`) ? Number(path.split("#")[1]) + 1 : "";
    put(path.startsWith(simEsp) ? join(folder, path) : `${disk}${index}`, bytes);
  }
  const slots = { a: { version, rootHash, worked: true, failed: false } };
  put(join(state, "state.json"), JSON.stringify({ ...emptyState, slots }));
  put(join(folder, "trust.json"), JSON.stringify(productionTrust));
  const facts = { version, development: false, architecture: "amd64", hardware: "pc" };
  put(join(folder, "release.json"), JSON.stringify({ ...facts, dataFormats }));
  const log = createLog("updater", { JOURNAL_STREAM: "" });
  const updater = await Updater.start({
    ...{ state, run, log, esp: join(folder, simEsp), bootDiskFile: join(folder, "boot-disk") },
    ...{ trustFile: join(folder, "trust.json"), releaseFile: join(folder, "release.json") },
    ...{ attemptsFile: join(folder, "attempts"), sticks: join(folder, "sticks") },
    ...{ storeSocket: join(folder, "no-store.sock"), storeDevice: null, httpsPort: 443 },
    system: {
      ...{ version, rootHash, developmentBuild: false, bootId: "boot", firmware: "uefi" },
      ...{ nodeName: "fixture", bootDisk: disk },
    },
  });
  mkdirSync(run, { recursive: true });
  const listener = await serveUnix(
    createApi(updater, (error) => log.error(String(error.stack))),
    join(run, "api.sock"),
  );
  return {
    updater,
    async stop() {
      await listener.close();
      await updater.stop();
    },
  };
}
