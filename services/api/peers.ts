/** The services that api drives, over their unix sockets. Errors arrive as KeelsonError. */
import type {
  CreateSnapshots,
  DifferencesPage,
  NbdGrant,
  PutVolume,
  ScrubInfo,
  ScrubSettings,
  ServedStoreInfo,
  SnapshotInfo,
  VolumeInfo,
} from "#services/chunk-store/schema.ts";
import type {
  ApplyResult,
  ExportsPutInput,
  ExportsView,
  SessionsView,
  TargetStatus,
} from "#services/iscsi-target/schema.ts";
import type { NetbootStatus } from "#services/netboot/schema.ts";
import { ServiceCaller } from "./service-caller.ts";

export interface StorePeer {
  info(): Promise<ServedStoreInfo>;
  volumes(): Promise<VolumeInfo[]>;
  put(id: string, body: PutVolume): Promise<VolumeInfo>;
  resize(id: string, sizeBytes: number): Promise<VolumeInfo>;
  seal(id: string): Promise<VolumeInfo>;
  delete(id: string): Promise<void>;
  grant(id: string): Promise<NbdGrant>;
  snapshots(): Promise<SnapshotInfo[]>;
  createSnapshots(body: CreateSnapshots): Promise<SnapshotInfo[]>;
  deleteSnapshot(id: string): Promise<void>;
  revert(id: string, snapshot: string): Promise<VolumeInfo>;
  /** Where `to` differs from the earlier `from`; `after` is the page before's `next`. */
  /** Null: since it was empty. */
  differences(from: string | null, to: string, after: number): Promise<DifferencesPage>;
  grantReader(kind: "snapshot" | "volume", id: string): Promise<NbdGrant>;
  scrub(): Promise<ScrubInfo>;
  startScrub(): Promise<ScrubInfo>;
  stopScrub(): Promise<ScrubInfo>;
  setScrub(settings: ScrubSettings): Promise<ScrubInfo>;
}

export interface TargetPeer {
  status(): Promise<TargetStatus>;
  exports(): Promise<ExportsView>;
  put(body: ExportsPutInput): Promise<ApplyResult>;
  sessions(): Promise<SessionsView>;
  /** Each list of sessions as it changes; ends when the connection does. */
  watchSessions(signal: AbortSignal): AsyncIterable<SessionsView>;
}

/** What netboot is given: its schema's input. */
export interface NetbootConfigInput {
  readonly generation: number;
  readonly interfaces: readonly {
    readonly name: string;
    readonly mode: "server" | "proxy" | "off";
    readonly subnet?: string;
    readonly pool?: { readonly first: string; readonly last: string };
    readonly router?: string;
    readonly dns: readonly string[];
    readonly leaseSeconds: number;
  }[];
}

export interface NetbootPeer {
  status(): Promise<NetbootStatus>;
  put(body: NetbootConfigInput): Promise<NetbootStatus>;
}

export interface Peers {
  readonly store: StorePeer;
  readonly target: TargetPeer;
  readonly netboot: NetbootPeer;
}

/** `run` directories of the three services. */
export function connectPeers(run: { store: string; iscsi: string; netboot: string }): Peers {
  const store = new ServiceCaller(run.store);
  const target = new ServiceCaller(run.iscsi);
  const netboot = new ServiceCaller(run.netboot);
  return {
    store: {
      info: () => store.json("GET", "store"),
      volumes: () => store.json("GET", "volumes"),
      put: (id, body) => store.json("PUT", `volumes/${id}`, body),
      resize: (id, sizeBytes) => store.json("PATCH", `volumes/${id}`, { sizeBytes }),
      seal: (id) => store.json("POST", `volumes/${id}/seal`),
      delete: (id) => store.json("DELETE", `volumes/${id}`),
      grant: (id) => store.json("POST", `volumes/${id}/nbd-grants`, { readOnly: false }),
      snapshots: () => store.json("GET", "snapshots"),
      createSnapshots: (body) => store.json("POST", "snapshots", body),
      deleteSnapshot: (id) => store.json("DELETE", `snapshots/${id}`),
      revert: (id, snapshot) => store.json("POST", `volumes/${id}/revert`, { snapshot }),
      differences: (from, to, after) =>
        store.json(
          "GET",
          `differences?${from === null ? "" : `from=${from}&`}to=${to}&after=${after}`,
        ),
      grantReader: (kind, id) =>
        kind === "snapshot"
          ? store.json("POST", `snapshots/${id}/nbd-grants`)
          : store.json("POST", `volumes/${id}/nbd-grants`, { readOnly: true }),
      scrub: () => store.json("GET", "scrub"),
      startScrub: () => store.json("POST", "scrub"),
      stopScrub: () => store.json("DELETE", "scrub"),
      setScrub: (settings) => store.json("PUT", "scrub/settings", settings),
    },
    target: {
      status: () => target.json("GET", "status"),
      exports: () => target.json("GET", "exports"),
      put: (body) => target.json("PUT", "exports", body),
      sessions: () => target.json("GET", "sessions"),
      async *watchSessions(signal) {
        for await (const { event, data } of target.events("events", signal)) {
          if (event === "sessions") yield JSON.parse(data) as SessionsView;
        }
      },
    },
    netboot: {
      status: () => netboot.json("GET", "status"),
      put: (body) => netboot.json("PUT", "config", body),
    },
  };
}
