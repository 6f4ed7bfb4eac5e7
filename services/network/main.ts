/** keelson-network: arguments, files and socket. */
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { explainError } from "#lib/model/errors.ts";
import { parsePortDeclaration } from "#lib/network/ports.ts";
import {
  confirmedName,
  pendingName,
  readHandover,
  readStored,
  type StoredNetwork,
} from "#lib/network/stored.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import type { Log } from "#lib/service/log.ts";
import { runService } from "#lib/service/main.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";
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
    const handover = readHandover(readStateFile(values.handover), values.handover);
    const network = await NodeNetwork.start({
      handover,
      store: storeIn(values.state, log),
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
    return {
      status: "the network is set up",
      async stop() {
        await listener.close();
        await network.stop();
      },
    };
  },
});

/** A file that can't be read counts as none: the node starts with what it was installed with. */
function storeIn(folder: string, log: Log): NetworkStore {
  const path = (name: string) => join(folder, name);
  const read = (name: string): StoredNetwork | undefined => {
    try {
      const value = readStateFile(path(name));
      return value === undefined ? undefined : readStored(value, path(name));
    } catch (error) {
      log.error(explainError(error));
      return undefined;
    }
  };
  const write = (name: string, stored: StoredNetwork) =>
    writeStateFile(path(name), `${JSON.stringify(stored, undefined, 2)}\n`);
  return {
    confirmed: () => read(confirmedName),
    pending: () => read(pendingName),
    writeConfirmed: (stored) => write(confirmedName, stored),
    writePending: (stored) => write(pendingName, stored),
    removePending: () => rmSync(path(pendingName), { force: true }),
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
