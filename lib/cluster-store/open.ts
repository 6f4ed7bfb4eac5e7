import { KeelsonError } from "#lib/model/errors.ts";
import { EmbeddedStore } from "./embedded.ts";
import { EtcdStore } from "./etcd/etcd.ts";
import type { ClusterStore } from "./store.ts";

/**
 * `sqlite:PATH`, or `etcd:` and the members of one cluster, each once: `etcd:unix:/PATH`,
 * `etcd:http://HOST:PORT,http://HOST:PORT,http://HOST:PORT`. The first is asked until it fails, then
 * the next. INVALID_ARGUMENT for anything else. Connects to etcd at the first request.
 */
export function openClusterStore(url: string): ClusterStore {
  const [, engine, rest] = /^(sqlite|etcd):(.+)$/.exec(url) ?? [];
  if (engine === "sqlite") return new EmbeddedStore(rest);
  if (engine === "etcd") return new EtcdStore(endpointsOf(url, rest.split(",")));
  throw namesNoStore(url, "");
}

function endpointsOf(url: string, endpoints: string[]): string[] {
  for (const [i, endpoint] of endpoints.entries()) {
    if (!isEndpoint(endpoint)) throw namesNoStore(url, `: "${endpoint}" is no endpoint`);
    if (endpoints.indexOf(endpoint) !== i) throw namesNoStore(url, `: ${endpoint} is there twice`);
  }
  return endpoints;
}

/** The port has to be there: without it a URL means port 80, where no etcd listens. */
function isEndpoint(text: string): boolean {
  if (/^unix:\/./.test(text)) return true;
  const port = /^https?:\/\/(?:[\w.-]+|\[[\da-f:.]+\]):(\d+)$/i.exec(text)?.[1];
  return port !== undefined && Number(port) > 0 && URL.canParse(text);
}

function namesNoStore(url: string, why: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", `"${url}" names no cluster store${why}.`, {
    operation: "open cluster store",
    object: url,
    remedy: "Give sqlite:PATH, etcd:unix:/PATH or etcd:http://HOST:PORT[,http://HOST:PORT...].",
  });
}
