import { KeelsonError } from "#lib/model/errors.ts";
import { EmbeddedStore } from "./embedded.ts";
import { EtcdStore } from "./etcd/etcd.ts";
import type { ClusterStore } from "./store.ts";

/**
 * `sqlite:PATH`, `etcd:unix:/path/to/socket`, `etcd:http://HOST:PORT[,http://HOST:PORT...]`.
 * INVALID_ARGUMENT for anything else. Connects to etcd at the first request.
 */
export function openClusterStore(url: string): ClusterStore {
  const [, engine, rest] = /^(sqlite|etcd):(.+)$/.exec(url) ?? [];
  if (engine === "sqlite") return new EmbeddedStore(rest);
  const endpoints = rest?.split(",") ?? [];
  if (engine === "etcd" && endpoints.every((text) => /^(unix:\/|https?:\/\/[^/]+$)/.test(text))) {
    return new EtcdStore(endpoints);
  }
  throw new KeelsonError("INVALID_ARGUMENT", `"${url}" names no cluster store.`, {
    remedy: "Give sqlite:PATH, etcd:unix:/PATH or etcd:http://HOST:PORT.",
  });
}
