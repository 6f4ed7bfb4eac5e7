/** keelson-netboot: arguments and sockets. */
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import { runService } from "#lib/service/main.ts";
import { createApi } from "./api.ts";
import { NetbootService } from "./service.ts";

const usage = `Usage: netboot --state DIR --run DIR [options]

DHCP, proxyDHCP, TFTP and the HTTP boot script.
  --state DIR          policy and leases
  --run DIR            control socket api.sock
  --api-run DIR        api's run directory (default: ../api beside --run)
  --interface NAME     serve DHCP on this interface only (repeatable; default: all that policy names)
  --http HOST:PORT     boot script and loaders (default 0.0.0.0:80; port 0 = a free one)
  --https-port N       the console's, for browsers (default 443)
  --tftp-port N        default 69; 0 = a free one
  --tftp-single-port   answer TFTP from the port it was asked on
  --dhcp-port N        default 67
  --proxy-port N       default 4011
  --client-port N      where DHCP clients listen (default 68)
  --loaders DIR        iPXE (default /usr/lib/ipxe)
  --no-dhcp --no-tftp --no-http
  --help`;

function portOf(text: string, flag: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65_535) return Number(text);
  throw new KeelsonError("INVALID_ARGUMENT", `--${flag} ${text} is not a port.`, {
    remedy: "Give a number from 0 to 65535.",
  });
}

function hostAndPort(text: string): { host: string; port: number } {
  const match = /^(\d+\.\d+\.\d+\.\d+):(\d{1,5})$/.exec(text);
  if (match !== null) return { host: match[1], port: portOf(match[2], "http") };
  throw new KeelsonError("INVALID_ARGUMENT", `--http ${text} is not ADDRESS:PORT.`, {
    remedy: "Give one like 0.0.0.0:80.",
  });
}

function required(value: string | undefined, flag: string): string {
  if (value !== undefined) return value;
  throw new KeelsonError("INVALID_ARGUMENT", `--${flag} is missing.`, { remedy: "See --help." });
}

await runService({
  name: "netboot",
  usage,
  options: {
    state: { type: "string" },
    run: { type: "string" },
    "api-run": { type: "string" },
    interface: { type: "string", multiple: true },
    http: { type: "string", default: "0.0.0.0:80" },
    "https-port": { type: "string", default: "443" },
    "tftp-port": { type: "string", default: "69" },
    "tftp-single-port": { type: "boolean", default: false },
    "dhcp-port": { type: "string", default: "67" },
    "proxy-port": { type: "string", default: "4011" },
    "client-port": { type: "string", default: "68" },
    loaders: { type: "string", default: "/usr/lib/ipxe" },
    "no-dhcp": { type: "boolean", default: false },
    "no-tftp": { type: "boolean", default: false },
    "no-http": { type: "boolean", default: false },
  },
  async start({ values, log, fail }) {
    const run = required(values.run, "run");
    const http = hostAndPort(values.http);
    const service = await NetbootService.start({
      state: required(values.state, "state"),
      apiSocket: join(values["api-run"] ?? join(run, "..", "api"), "internal.sock"),
      loaders: values.loaders,
      version: process.env.KEELSON_VERSION ?? "development",
      log,
      fail,
      interfaces: values.interface === undefined ? undefined : new Set(values.interface),
      dhcp: values["no-dhcp"]
        ? null
        : {
            server: portOf(values["dhcp-port"], "dhcp-port"),
            proxy: portOf(values["proxy-port"], "proxy-port"),
            client: portOf(values["client-port"], "client-port"),
          },
      tftp: values["no-tftp"]
        ? null
        : {
            port: portOf(values["tftp-port"], "tftp-port"),
            singlePort: values["tftp-single-port"],
          },
      http: values["no-http"]
        ? null
        : { ...http, httpsPort: portOf(values["https-port"], "https-port") },
    });
    const app = createApi(service, (error) => log.error(`control API: ${error.stack}`));
    const listener = await serveUnix(app, join(run, "api.sock"));
    log.info(`ready: ${service.describe()}`);
    return {
      status: service.describe(),
      addresses: service.addresses(),
      async stop() {
        await listener.close();
        await service.stop();
      },
    };
  },
});
