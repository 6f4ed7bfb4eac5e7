/** The public documents: policy and observations joined. Computed when asked, never stored. */
import { type Checked, read } from "#lib/aime/checked.ts";
import { portalPort } from "./boot.ts";
import type { ClientRegistry } from "./clients.ts";
import type { Clock } from "./clock.ts";
import type { ConditionBoard } from "./conditions.ts";
import type { Documents } from "./events.ts";
import type { ImageImports } from "./image-import.ts";
import type { NetbootInterface } from "./netboot-policy.ts";
import type { NodeAddress, NodeIdentity } from "./node.ts";
import type { BootRecord, ExportRecord, ImageRecord, Policy, VolumeRecord } from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";
import type {
  AccountResource,
  BootEntry,
  Client,
  EventResource,
  Export,
  Image,
  Netboot,
  Node,
  ServiceState,
  Store,
  Volume,
  VolumeUser,
} from "./schema.ts";
import { type SnapshotViews, spaceOf } from "./snapshot-views.ts";
import type { TaskList } from "./tasks.ts";
import type { Upgrades } from "./upgrades.ts";

export interface ViewSources {
  readonly policy: Policy;
  readonly reconciler: Reconciler;
  readonly clients: ClientRegistry;
  readonly tasks: TaskList;
  readonly imports: Pick<ImageImports, "receivedBytes">;
  readonly snapshots: SnapshotViews;
  readonly upgrades: Pick<Upgrades, "last">;
  readonly conditions: ConditionBoard;
  readonly clock: Clock;
  readonly identity: NodeIdentity;
  readonly addresses: () => readonly NodeAddress[];
  readonly netbootInterfaces: () => readonly NetbootInterface[];
  readonly netbootWanted: () => boolean;
  readonly portalAddress: string;
  readonly certificateFingerprint: () => string | null;
  readonly clockSynchronised: () => Checked<boolean>;
  readonly clusterStore: () => Checked<string>;
}

interface Named {
  readonly id: string;
  readonly name: string;
}

export class Views {
  readonly #from: ViewSources;

  constructor(sources: ViewSources) {
    this.#from = sources;
  }

  #known<Value>(checked: Checked<Value>): Value | undefined {
    const reading = read(checked, this.#from.clock.bootMs());
    return reading.known ? reading.value : undefined;
  }

  #why(checked: Checked<unknown>): string | null {
    const reading = read(checked, this.#from.clock.bootMs());
    return reading.known ? reading.caveat : reading.reason;
  }

  node(): Node {
    const { identity, addresses, clock, certificateFingerprint, clockSynchronised } = this.#from;
    const now = clock.now();
    const uptimeMs = clock.bootMs();
    return {
      ...identity,
      addresses: addresses().map(({ interface: name, mac, address }) => ({
        interface: name,
        mac,
        address,
      })),
      uptimeMs,
      // To the second: it would move by the clock's own corrections.
      bootedAt: new Date(Math.round((Date.parse(now) - uptimeMs) / 1000) * 1000).toISOString(),
      time: now,
      clockSynchronised: this.#known(clockSynchronised()) ?? null,
      certificateFingerprint: certificateFingerprint(),
      portals: this.portals(),
      services: this.services(),
    };
  }

  services(): ServiceState[] {
    const { reconciler, netbootWanted, identity, policy, clusterStore } = this.#from;
    const { store, target, netboot } = reconciler.observation;
    const state = (
      name: ServiceState["name"],
      checked: Checked<unknown>,
      version: string | null,
      generation: number | null,
    ): ServiceState => ({
      name,
      state: read(checked, this.#from.clock.bootMs()).known ? "running" : "unreachable",
      version,
      message: this.#why(checked),
      generation,
    });
    const targetStatus = this.#known(target);
    const netbootStatus = this.#known(netboot);
    const api: ServiceState = {
      name: "api",
      state: "running",
      version: identity.version,
      message: null,
      generation: policy.revision,
    };
    return [
      api,
      state("cluster-store", clusterStore(), this.#known(clusterStore()) ?? null, null),
      state("chunk-store", store, null, null),
      state(
        "iscsi-target",
        target,
        targetStatus?.version ?? null,
        targetStatus?.generation ?? null,
      ),
      netbootWanted() || netbootStatus !== undefined
        ? state(
            "netboot",
            netboot,
            netbootStatus?.version ?? null,
            netbootStatus?.generation ?? null,
          )
        : { name: "netboot", state: "off", version: null, message: null, generation: null },
    ];
  }

  /** Where initiators reach the target, as ADDRESS:PORT. */
  portals(): string[] {
    const bound = this.#known(this.#from.reconciler.observation.target)?.portals ?? [];
    const { portalAddress, addresses } = this.#from;
    const port = portalPort(bound);
    if (portalAddress !== "auto") return [`${portalAddress}:${port}`];
    return bound.flatMap((portal) => {
      const any = /^(0\.0\.0\.0|\[::\]|::|\*):/.test(portal);
      if (!any) return [portal];
      const own = addresses().filter(({ family }) => family === "IPv4");
      return own.map(({ address }) => `${address}:${port}`);
    });
  }

  store(): Store {
    const { store } = this.#from.reconciler.observation;
    const info = this.#known(store);
    if (info === undefined) {
      return {
        state: "unreachable",
        message: this.#why(store),
        storeId: null,
        device: null,
        sizeBytes: null,
        usedBytes: null,
        freeBytes: null,
        space: null,
        volumeCount: null,
        experimental: true,
        observedAt: null,
      };
    }
    return {
      state: info.state === "mounted" ? "ready" : "failed",
      message: info.reason,
      storeId: info.id,
      device: info.device,
      sizeBytes: info.sizeBytes,
      usedBytes: info.sizeBytes - info.freeBytes,
      freeBytes: info.freeBytes,
      space: spaceOf(info, this.#known(this.#from.reconciler.observation.volumes) ?? []),
      volumeCount: this.#known(this.#from.reconciler.observation.volumes)?.length ?? null,
      experimental: info.experimental,
      observedAt: this.#from.clock.now(),
    };
  }

  volume(record: VolumeRecord): Volume {
    return this.volumes([record])[0];
  }

  /** Many at once: what they are joined with is looked through once, not once for each. */
  volumes(records = this.#from.policy.list("volume")): Volume[] {
    const observed = this.#known(this.#from.reconciler.observation.volumes) ?? [];
    const infos = new Map(observed.map((info) => [info.id, info]));
    const users = this.#volumeUsers();
    return records.map((record) => {
      const info = infos.get(record.id);
      const { id, name, kind, state, failure, sizeBytes, parentVolumeId, sealed, createdAt } =
        record;
      const { parentSnapshotId = null } = record;
      return {
        id,
        name,
        kind,
        state,
        failure,
        sizeBytes,
        allocatedBytes: info?.usedBytes ?? null,
        readOnly: sealed,
        parentVolumeId,
        parentSnapshotId,
        snapshotCount: info?.snapshots ?? null,
        snapshotBytes: info?.snapshotBytes ?? null,
        usedBy: users.get(id) ?? [],
        createdAt,
      };
    });
  }

  #volumeUsers(): Map<string, VolumeUser[]> {
    const { policy } = this.#from;
    const users = new Map<string, VolumeUser[]>();
    const add = (volumeId: string | null, kind: VolumeUser["kind"], { id, name }: Named) => {
      if (volumeId === null) return;
      const known = users.get(volumeId);
      if (known === undefined) users.set(volumeId, [{ kind, id, name }]);
      else known.push({ kind, id, name });
    };
    for (const image of policy.list("image")) add(image.volumeId, "image", image);
    for (const boot of policy.list("boot")) add(boot.cloneVolumeId, "boot-entry", boot);
    for (const entry of policy.list("export")) add(entry.volumeId, "export", entry);
    return users;
  }

  image(record: ImageRecord): Image {
    return this.images([record])[0];
  }

  images(records = this.#from.policy.list("image")): Image[] {
    const { policy, tasks, imports } = this.#from;
    const bootEntries = Map.groupBy(policy.list("boot"), ({ imageId }) => imageId);
    return records.map(({ sourceFormat, ...shown }) => ({
      ...shown,
      format: sourceFormat ?? shown.format,
      receivedBytes: shown.state === "uploading" ? imports.receivedBytes(shown.id) : null,
      taskId: tasks.about(shown.id)?.id ?? null,
      bootEntryCount: bootEntries.get(shown.id)?.length ?? 0,
    }));
  }

  bootEntry(record: BootRecord): BootEntry {
    const { policy } = this.#from;
    const { chapUser: _user, chapSecret: _secret, ...shown } = record;
    const clone =
      record.cloneVolumeId === null ? undefined : policy.find("volume", record.cloneVolumeId);
    const state = clone?.state ?? "none";
    return {
      ...shown,
      imageName: policy.find("image", record.imageId)?.name ?? null,
      cloneState: state === "deleting" ? "none" : state,
      chap: "set",
    };
  }

  clients(): Client[] {
    const { clients, policy, clock } = this.#from;
    return clients.list().map((observed) => {
      const entry =
        policy.claimant("boot", "boot-mac", observed.mac) ??
        (observed.uuid === null ? undefined : policy.claimant("boot", "boot-uuid", observed.uuid));
      const { lastSeenMs, reachedMs: _reached, ...shown } = observed;
      return {
        ...shown,
        stages: observed.stages.map((stage) => ({ ...stage })),
        stage: observed.stages.at(-1)?.stage ?? null,
        lastSeenAgeMs: Math.max(0, clock.bootMs() - lastSeenMs),
        bootEntryId: entry?.id ?? null,
        bootEntryName: entry?.name ?? null,
      };
    });
  }

  export(record: ExportRecord): Export {
    return this.exports([record])[0];
  }

  exports(records = this.#from.policy.list("export")): Export[] {
    const { policy, reconciler } = this.#from;
    const { exports } = reconciler.observation;
    const observed = this.#known(exports)?.exports ?? [];
    const servedBy = new Map(observed.map((served) => [served.id, served]));
    const portals = this.portals();
    return records.map(({ chapSecret: _secret, ...shown }) => {
      const volume = policy.find("volume", shown.volumeId);
      const served = servedBy.get(`export.${shown.id}`);
      const failed = volume === undefined || volume.state === "failed";
      const ready = served?.volumeState === "ready" && served.volumeId === shown.volumeId;
      const waiting =
        served === undefined ? "Not served yet." : `The target says: ${served.volumeState}.`;
      return {
        ...shown,
        volumeName: volume?.name ?? null,
        state: failed ? "failed" : ready ? "ready" : "pending",
        message: failed
          ? (volume?.failure ?? "Its volume is gone.")
          : ready
            ? null
            : (this.#why(exports) ?? waiting),
        sessionCount: served?.sessionCount ?? null,
        portals,
      };
    });
  }

  netboot(): Netboot {
    const { reconciler, netbootInterfaces, netbootWanted } = this.#from;
    const { netboot } = reconciler.observation;
    const status = this.#known(netboot);
    const service = status === undefined ? (netbootWanted() ? "unreachable" : "off") : "running";
    return {
      service,
      message: status === undefined ? this.#why(netboot) : null,
      interfaces: netbootInterfaces().map((entry) => {
        const seen = status?.interfaces.find(({ name }) => name === entry.name);
        return {
          ...entry,
          otherServers: [...(seen?.otherServers ?? [])],
          message: seen?.problem ?? null,
        };
      }),
    };
  }

  /** Of one resource, by id, for the events. */
  documents(resource: Exclude<EventResource, AccountResource>): Documents {
    const { policy, tasks, conditions } = this.#from;
    const by = <Value>(values: readonly Value[], id: (value: Value) => string) =>
      new Map(values.map((value) => [id(value), value]));
    switch (resource) {
      case "node":
        return new Map([["", this.node()]]);
      case "upgrade": {
        const { last } = this.#from.upgrades;
        return new Map(last === null ? [] : [["", last]]);
      }
      case "store":
        return new Map([["", this.store()]]);
      case "netboot":
        return new Map([["", this.netboot()]]);
      case "volumes":
        return by(this.volumes(), ({ id }) => id);
      case "images":
        return by(this.images(), ({ id }) => id);
      case "boot-entries":
        return by(
          policy.list("boot").map((record) => this.bootEntry(record)),
          ({ id }) => id,
        );
      case "exports":
        return by(this.exports(), ({ id }) => id);
      case "snapshots":
        return by(this.#from.snapshots.list(), ({ id }) => id);
      case "snapshot-schedules":
        return by(this.#from.snapshots.schedules(), ({ id }) => id);
      case "clients":
        return by(this.clients(), ({ mac }) => mac);
      case "conditions":
        return by(conditions.list(), ({ id }) => id);
      case "tasks":
        return by(tasks.list(), ({ id }) => id);
    }
  }
}
