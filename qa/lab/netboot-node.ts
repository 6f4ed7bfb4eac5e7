/** A netboot node of the lab: its namespace, the service, and its control API. */
import { unixFetch } from "#lib/rpc/client.ts";
import type { Lab, Namespace, Segment, Service } from "./lab.ts";

export interface NetbootNode {
  readonly host: Namespace;
  readonly service: Service;
  get<Body>(path: string): Promise<Body>;
  put(path: string, body: unknown): Promise<{ status: number; body: unknown }>;
  delete(path: string): Promise<number>;
  counters(): Promise<Record<string, number>>;
}

export const nodeAddress = "10.77.0.1";
export const subnet = "10.77.0.0/24";

export const serverPolicy = {
  generation: 1,
  interfaces: [
    {
      name: "eth0",
      mode: "server",
      subnet,
      pool: { first: "10.77.0.100", last: "10.77.0.149" },
      router: nodeAddress,
      dns: ["10.77.0.53"],
      domain: "lab.test",
      leaseSeconds: 600,
    },
  ],
};

/** iPXE of another Debian than this machine's. */
const folder = process.env.KEELSON_LAB_LOADERS;
const loaders = folder === undefined ? [] : ["--loaders", folder];

/** A node at 10.77.0.1 on `segment` with `args` for netboot and, if given, `policy` applied. */
export async function netbootNode(
  lab: Lab,
  segment: Segment,
  options: {
    readonly args?: readonly string[];
    readonly policy?: unknown;
    readonly env?: NodeJS.ProcessEnv;
    readonly state?: string;
    readonly host?: Namespace;
  } = {},
): Promise<NetbootNode> {
  const host = options.host ?? (await segment.host("node", `${nodeAddress}/24`));
  const service = await lab.service(host, "netboot", [...loaders, ...(options.args ?? [])], {
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.state === undefined ? {} : { state: options.state }),
  });
  const node = controlOf(host, service);
  if (options.policy !== undefined) {
    const answer = await node.put("/v1/config", options.policy);
    if (answer.status !== 200) {
      throw new Error(`netboot refused the policy: ${JSON.stringify(answer.body)}`);
    }
  }
  return node;
}

function controlOf(host: Namespace, service: Service): NetbootNode {
  const send = unixFetch(service.socket, 10_000);
  const call = async (method: string, path: string, body?: unknown) => {
    const response = await send(`http://unix${path}`, {
      method,
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    const text = await response.text();
    return {
      status: response.status,
      body: text === "" ? undefined : (JSON.parse(text) as unknown),
    };
  };
  return {
    host,
    service,
    get: async (path) => (await call("GET", path)).body as never,
    put: (path, body) => call("PUT", path, body),
    delete: async (path) => (await call("DELETE", path)).status,
    counters: async () =>
      ((await call("GET", "/v1/status")).body as { counters: Record<string, number> }).counters,
  };
}
