import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runService } from "#lib/service/main.ts";
import { startApi } from "./api.ts";
import { parseEndpoint } from "./listener.ts";

// Small code for what is compiled from here on: a third of this service's memory (decision 0135).
// Not on the command line: Node's own modules would have to be compiled at each start then.
setFlagsFromString("--optimize-for-size");

await runService({
  name: "api",
  usage: `Usage: api --state DIR --run DIR --cluster-store URL (--https HOST:PORT | --http HOST:PORT)

The API and the web console; the only writer of policy, which it drives the other services to.

  --state DIR              CA, certificate, spool of uploads
  --run DIR                internal.sock, for netboot
  --https HOST:PORT        TLS with this node's own certificate (also --listen)
  --http HOST:PORT         plain HTTP, for development; port 0 = a free one
  --cluster-store URL      sqlite:PATH, etcd:unix:/PATH or etcd:http://HOST:PORT[,...]
  --store-run DIR          chunk-store's run directory
  --iscsi-run DIR          iscsi-target's run directory
  --netboot-run DIR        netboot's run directory
  --updater-run DIR        firmware-updater's run directory
  --network-run DIR        network's run directory
  --ui DIR                 the built console
  --spool DIR              uploads until they are converted (default STATE/spool)
  --portal-address auto|IP what clients are told (default $KEELSON_PORTAL_ADDRESS, else auto:
                           the address they reached netboot on)
  --admin-password-hash-file FILE
                           one line, $argon2id$... or $6$..., taken at the first start; without it
                           a password is made up and printed once
  --secret-key FILE        32 bytes that secrets are sealed with, and FILE.seal: tpm2 or host
                           (default STATE/secret.key, made at the first start: for development)
  --no-native              without the addon (it is used for nothing here but sd_notify)
  --help`,
  options: {
    state: { type: "string" },
    run: { type: "string" },
    https: { type: "string" },
    listen: { type: "string" },
    http: { type: "string" },
    "cluster-store": { type: "string" },
    "store-run": { type: "string" },
    "iscsi-run": { type: "string" },
    "netboot-run": { type: "string" },
    "updater-run": { type: "string" },
    "network-run": { type: "string" },
    ui: { type: "string" },
    spool: { type: "string" },
    "portal-address": { type: "string" },
    "admin-password-hash-file": { type: "string" },
    "secret-key": { type: "string" },
    "no-native": { type: "boolean" },
  },
  async start({ values, log }) {
    const state = values.state ?? "/var/lib/keelson/api";
    const run = values.run ?? "/run/keelson/api";
    const peer = (name: string) => `/run/keelson/${name}`;
    const https = values.https ?? values.listen;
    const environmentAddress = process.env.KEELSON_PORTAL_ADDRESS || "auto";
    const api = await startApi({
      state,
      run,
      https: https === undefined ? null : parseEndpoint(https, "--https"),
      http: values.http === undefined ? null : parseEndpoint(values.http, "--http"),
      peers: {
        store: values["store-run"] ?? peer("chunk-store"),
        iscsi: values["iscsi-run"] ?? peer("iscsi-target"),
        netboot: values["netboot-run"] ?? peer("netboot"),
        network: values["network-run"] ?? peer("network"),
        updater: values["updater-run"] ?? peer("firmware-updater"),
      },
      clusterStore: values["cluster-store"] ?? `sqlite:${join(state, "cluster-store.sqlite")}`,
      ui: values.ui ?? null,
      spool: values.spool ?? join(state, "spool"),
      portalAddress: values["portal-address"] ?? environmentAddress,
      secretKey: values["secret-key"],
      adminHashFile: values["admin-password-hash-file"] ?? null,
      log,
    });
    return {
      status: Object.values(api.addresses).join(" "),
      addresses: api.addresses,
      stop: api.close,
    };
  },
});
