/** keelson-network: arguments, files and socket. */
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { FormattedFile } from "#lib/data-format/formatted-file.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { explainError } from "#lib/model/errors.ts";
import { parsePortDeclaration } from "#lib/network/ports.ts";
import {
  pendingName,
  readHandover,
  type StoredNetwork,
  storedNetworks,
} from "#lib/network/stored.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import type { Log } from "#lib/service/log.ts";
import { runService } from "#lib/service/main.ts";
import { readStateFile } from "#lib/service/state-file.ts";
import { createApi } from "./api.ts";
import { type NetworkStore, NodeNetwork } from "./network.ts";
import { LinuxNetwork, networkdRunsIn } from "./system.ts";

const usage = `Usage: keelson-network --state DIR --run DIR [options]

The node's networks: networkd's files, the firewall, and changes that revert themselves.
  --state DIR      confirmed.json and pending.json
  --run DIR        control socket api.sock
  --handover FILE  what node-setup says (default /run/keelson/network.json)
  --networkd DIR   where networkd's files go (default /run/systemd/network)
  --netif DIR      networkd's own state (default /run/systemd/netif)
  --ports DIR      what services open (default /usr/lib/keelson/ports.d)
  --port-kind KIND links of this kind count as ports too (repeatable; for tests)
  --help`;

await runService({
  name: "keelson-network",
  usage,
  options: {
    state: { type: "string", default: "/var/lib/keelson/network" },
    run: { type: "string", default: "/run/keelson/network" },
    handover: { type: "string", default: "/run/keelson/network.json" },
    networkd: { type: "string", default: "/run/systemd/network" },
    netif: { type: "string", default: "/run/systemd/netif" },
    ports: { type: "string", default: "/usr/lib/keelson/ports.d" },
    "port-kind": { type: "string", multiple: true, default: [] },
  },
  async start({ values, log }) {
    mkdirSync(values.state, { recursive: true });
    const held = new HeldFormatsFile();
    const files = storedNetworks(values.state, held);
    const handover = readHandover(readStateFile(values.handover), values.handover);
    const network = await NodeNetwork.start({
      handover,
      store: storeIn(values.state, files, log),
      system: new LinuxNetwork({
        folder: values.networkd,
        networkdRuns: () => networkdRunsIn(values.netif),
        log,
      }),
      declarations: declarationsIn(values.ports, log),
      log,
      portKinds: ["port", ...values["port-kind"]],
    });
    const app = createApi(network, (error) => log.error(`control API: ${error.stack}`));
    const listener = await serveUnix(app, join(values.run, "api.sock"));
    const migrate = () => {
      try {
        if (files.confirmed.migrate()) log.info("the networks' file has its new format");
      } catch (error) {
        log.error(explainError(error));
      }
    };
    migrate();
    const forget = held.onChange(migrate);
    return {
      status: "the network is set up",
      async stop() {
        forget();
        await listener.close();
        await network.stop();
      },
    };
  },
});

/** A file that can't be read counts as none: the node starts with what it was installed with. */
function storeIn(
  folder: string,
  { confirmed, pending }: ReturnType<typeof storedNetworks>,
  log: Log,
): NetworkStore {
  const read = (file: FormattedFile<StoredNetwork>): StoredNetwork | undefined => {
    try {
      return file.read();
    } catch (error) {
      log.error(explainError(error));
      return undefined;
    }
  };
  return {
    confirmed: () => read(confirmed),
    pending: () => read(pending),
    writeConfirmed: (stored) => confirmed.write(stored),
    writePending: (stored) => pending.write(stored),
    removePending: () => rmSync(join(folder, pendingName), { force: true }),
  };
}

/** One bad file closes that service's ports, not everybody's. */
function declarationsIn(folder: string, log: Log) {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .sort()
    .flatMap((name) => {
      try {
        return [parsePortDeclaration(readFileSync(join(folder, name), "utf8"), name)];
      } catch (error) {
        log.error(explainError(error));
        return [];
      }
    });
}
