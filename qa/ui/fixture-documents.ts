/** Documents of a node on a busy day, typed by api's own schemas. */
import { permissions } from "#services/api/permissions.ts";
import type {
  BootEntry,
  BootStage,
  Client,
  Condition,
  Export,
  Image,
  Netboot,
  Node,
  SessionInfo,
  Store,
  Task,
  Volume,
} from "#services/api/schema.ts";

const gib = 2 ** 30;
const stages: readonly BootStage[] = ["dhcp", "loader", "script", "san", "os"];

function uuid(number: number): string {
  return `0f000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
}

function mac(number: number): string {
  const hex = number.toString(16).padStart(4, "0");
  return `52:54:00:1a:${hex.slice(0, 2)}:${hex.slice(2)}`;
}

function ago(ageMs: number): string {
  return new Date(Date.now() - ageMs).toISOString();
}

interface Size {
  readonly rows: number;
  readonly empty: boolean;
}

export interface Documents {
  readonly session: SessionInfo;
  readonly resources: Record<string, unknown>;
}

export function documents({ rows, empty }: Size): Documents {
  const lists = empty ? emptyLists() : fullLists(rows);
  return {
    session: {
      user: "admin",
      displayName: "admin",
      roles: ["admin"],
      permissions: [...permissions],
      mustChangePassword: false,
      expiresAt: ago(-3_600_000),
    },
    resources: {
      node: nodeDocument(),
      store: storeDocument(empty),
      netboot: netbootDocument(empty),
      ...lists,
    },
  };
}

function emptyLists() {
  return {
    volumes: [],
    images: [],
    "boot-entries": [],
    clients: [],
    exports: [],
    conditions: [],
    tasks: [],
  };
}

function nodeDocument(): Node {
  const service = (name: Node["services"][number]["name"], message: string | null = null) =>
    ({ name, state: "running", version: "2026.11.0", message, generation: 12 }) as const;
  return {
    name: "keelson-a1",
    id: uuid(1),
    version: "2026.11.0",
    devBuild: true,
    addresses: [
      { interface: "enp1s0", mac: mac(1), address: "192.0.2.10/24" },
      { interface: "enp2s0", mac: mac(2), address: "10.77.0.1/24" },
    ],
    uptimeMs: 93_600_000,
    bootedAt: ago(93_600_000),
    time: ago(0),
    clockSynchronised: true,
    certificateFingerprint:
      "9F:86:D0:81:88:4C:7D:65:9A:2F:EA:A0:C5:5A:D0:15:A3:BF:4F:1B:2B:0B:82:2C:D1:5D:6C:15:B0:F0:0A:08",
    portals: ["10.77.0.1:3260"],
    services: [
      service("api"),
      service("cluster-store"),
      service("chunk-store"),
      service("iscsi-target", "6 sessions"),
      service("netboot"),
    ],
  };
}

function storeDocument(empty: boolean): Store {
  return {
    state: "ready",
    message: null,
    storeId: uuid(2),
    device: "/dev/disk/by-partlabel/keelson-store",
    sizeBytes: 931 * gib,
    usedBytes: empty ? 0.2 * gib : 214.6 * gib,
    freeBytes: empty ? 930.8 * gib : 716.4 * gib,
    space: {
      volumesBytes: empty ? 0 : 171.3 * gib,
      snapshotsBytes: empty ? 0 : 38.6 * gib,
      hiddenBytes: empty ? 0 : 4.4 * gib,
      metadataBytes: empty ? 0.2 * gib : 0.3 * gib,
      freeBytes: empty ? 930.8 * gib : 716.4 * gib,
    },
    volumeCount: empty ? 0 : 11,
    experimental: true,
    observedAt: ago(1500),
  };
}

function netbootDocument(empty: boolean): Netboot {
  const settings = { pool: null, gateway: null, dns: [], leaseSeconds: 3600 };
  return {
    service: "running",
    message: null,
    interfaces: [
      {
        name: "enp1s0",
        mac: mac(1),
        address: "192.0.2.10",
        prefixLength: 24,
        settings: { ...settings, mode: "off" },
        otherServers: ["192.0.2.1"],
        message: null,
      },
      {
        name: "enp2s0",
        mac: mac(2),
        address: "10.77.0.1",
        prefixLength: 24,
        settings: empty
          ? { ...settings, mode: "off" }
          : {
              mode: "server",
              pool: { first: "10.77.0.100", last: "10.77.0.199" },
              gateway: "10.77.0.1",
              dns: ["10.77.0.1"],
              leaseSeconds: 3600,
            },
        otherServers: [],
        message: null,
      },
    ],
  };
}

function fullLists(rows: number) {
  const images: Image[] = [
    image(10, "debian-13-workstation", "ready", 8 * gib),
    image(11, "ubuntu-24.04-kiosk", "ready", 16 * gib),
    image(12, "windows-lab-2026", "importing", null),
    {
      ...image(13, "router-lab", "failed", null),
      failure:
        "The file ends after 1.2 GiB of the 4 GiB that its header promises. Upload it again.",
    },
  ];
  const names = [
    "reading-room-01",
    "reading-room-02",
    "reading-room-03",
    "lab-bench-1",
    "lab-bench-2",
    "kiosk-entrance",
    "render-04",
  ];
  const entries = names.map((name, index) => entry(index, name, images[index % 2]));
  const clients = [
    ...entries
      .slice(0, 6)
      .map((item, index) => client(index, item, stages[[4, 4, 4, 3, 1, 2][index]])),
    client(90, undefined, "script"),
  ];
  const volumes: Volume[] = [
    volume(30, "debian-13-workstation", "image", 8 * gib, 2.4 * gib),
    volume(31, "ubuntu-24.04-kiosk", "image", 16 * gib, 5.1 * gib),
    volume(32, "vm-host-data", "plain", 512 * gib, 188 * gib),
    volume(33, "scratch", "plain", 100 * gib, 0),
    ...entries.map((item, index) =>
      volume(40 + index, `${item.name}-disk`, "client", 8 * gib, (index + 1) * 0.31 * gib),
    ),
  ];
  for (let index = 0; index < rows; index++) {
    volumes.push(
      volume(
        1000 + index,
        `bulk-${String(index).padStart(4, "0")}`,
        "plain",
        gib,
        (index % 90) * 1e7,
      ),
    );
    const item = entry(1000 + index, `desk-${String(index).padStart(4, "0")}`, images[index % 2]);
    entries.push(item);
    clients.push(client(1000 + index, item, stages[index % 5]));
  }
  return {
    images,
    "boot-entries": entries,
    clients,
    volumes,
    exports: [exported()],
    conditions: conditions(),
    tasks: tasks(),
  };
}

function image(id: number, name: string, state: Image["state"], sizeBytes: number | null): Image {
  return {
    id: uuid(id),
    name,
    state,
    format: state === "ready" ? "qcow2" : "auto",
    receivedBytes: state === "uploading" ? 3e8 : null,
    sizeBytes,
    volumeId: sizeBytes === null ? null : uuid(id + 20),
    taskId: state === "importing" ? uuid(70) : null,
    failure: null,
    bootEntryCount: id === 10 ? 4 : id === 11 ? 3 : 0,
    createdAt: ago(id * 7_000_000),
  };
}

function entry(number: number, name: string, booted: Image): BootEntry {
  return {
    id: uuid(200 + number),
    name,
    mac: mac(number + 0x40),
    uuid: null,
    imageId: booted.id,
    imageName: booted.name,
    cloneVolumeId: number === 6 ? null : uuid(40 + number),
    cloneState: number === 6 ? "none" : "ready",
    targetIqn: `iqn.2026-11.keelson:boot-${name}`,
    initiatorIqn: `iqn.2026-11.keelson:client-${name}`,
    chap: "set",
    createdAt: ago(80_000_000),
  };
}

function client(number: number, of: BootEntry | undefined, stage: BootStage): Client {
  const reached = stages.indexOf(stage);
  const unknown = of === undefined;
  return {
    mac: mac(number + 0x40),
    uuid: unknown ? "4c4c4544-0042-4810-8054-b7c04f463132" : null,
    address: `10.77.0.${100 + (number % 100)}`,
    arch: number % 3 === 0 ? "uefi-x64" : "bios",
    stages: stages
      .slice(0, reached + 1)
      .map((name, index) => ({ stage: name, at: ago(30_000 - index * 5000), detail: null })),
    stage,
    firstSeenAt: ago(86_400_000),
    lastSeenAt: ago(4000 * (number + 1)),
    lastSeenAgeMs: 4000 * (number + 1),
    bootEntryId: of?.id ?? null,
    bootEntryName: of?.name ?? null,
    sessionCount: stage === "os" ? 1 : 0,
    failure: number === 5 ? "Its clone could not be made: the store is full." : null,
  };
}

function volume(
  id: number,
  name: string,
  kind: Volume["kind"],
  sizeBytes: number,
  allocatedBytes: number,
): Volume {
  return {
    id: uuid(id),
    name,
    kind,
    state: "ready",
    failure: null,
    sizeBytes,
    allocatedBytes,
    readOnly: kind === "image",
    parentVolumeId: null,
    parentSnapshotId: null,
    snapshotCount: 0,
    snapshotBytes: 0,
    usedBy:
      kind === "plain"
        ? id === 32
          ? [{ kind: "export", id: uuid(60), name: "vm-host-data" }]
          : []
        : [
            {
              kind: kind === "image" ? "image" : "boot-entry",
              id: uuid(61),
              name: name.replace(/-disk$/, ""),
            },
          ],
    createdAt: ago(90_000_000),
  };
}

function exported(): Export {
  return {
    id: uuid(60),
    name: "vm-host-data",
    volumeId: uuid(32),
    volumeName: "vm-host-data",
    targetIqn: "iqn.2026-11.keelson:vm-host-data",
    initiators: ["iqn.1993-08.org.debian:01:4f2c8e1b7a90"],
    readOnly: false,
    openToLoopback: false,
    chapUser: "vm-host-data",
    state: "ready",
    message: null,
    sessionCount: 1,
    portals: ["10.77.0.1:3260"],
    createdAt: ago(70_000_000),
  };
}

function conditions(): Condition[] {
  const common = { subject: null, lastSeenAt: ago(2000), mutedUntil: null } as const;
  return [
    {
      ...common,
      id: "IMAGE_IMPORT_FAILED:router-lab",
      code: "IMAGE_IMPORT_FAILED",
      status: "true",
      severity: "warning",
      title: "Image router-lab was not imported",
      reason: "The file ends after 1.2 GiB of the 4 GiB that its header promises.",
      remedy: "Upload it again, or delete the image.",
      since: ago(5_400_000),
    },
    {
      ...common,
      id: "STORE_FORMAT_EXPERIMENTAL",
      code: "STORE_FORMAT_EXPERIMENTAL",
      status: "true",
      severity: "notice",
      title: "The store’s format is experimental",
      reason: "A later version may not read what this one writes.",
      remedy: "Keep a copy of what you need elsewhere.",
      since: ago(93_000_000),
    },
    {
      ...common,
      id: "CLOCK_UNSYNCHRONISED",
      code: "CLOCK_UNSYNCHRONISED",
      status: "unknown",
      severity: "warning",
      title: "The clock may be wrong",
      reason: "timedated did not answer.",
      remedy: null,
      since: ago(60_000),
    },
    ...["STORE_UNREACHABLE", "STORE_NEARLY_FULL", "ISCSI_TARGET_UNREACHABLE"].map(
      (code) =>
        ({
          ...common,
          id: code,
          code,
          status: "false",
          severity: "critical",
          title: code.replaceAll("_", " ").toLowerCase(),
          reason: "All is well.",
          remedy: null,
          since: ago(93_000_000),
        }) as const,
    ),
  ];
}

function tasks(): Task[] {
  const common = {
    kind: "image-import",
    subject: uuid(12),
    bytesDone: null,
    bytesTotal: 20 * gib,
  } as const;
  return [
    {
      ...common,
      id: uuid(70),
      title: "Import windows-lab-2026",
      state: "running",
      phase: "convert",
      progressPercent: 42.4,
      failure: null,
      startedAt: ago(95_000),
      endedAt: null,
    },
    {
      ...common,
      id: uuid(71),
      title: "Import router-lab",
      state: "failed",
      phase: "check",
      progressPercent: null,
      failure: "The file ends after 1.2 GiB of the 4 GiB that its header promises.",
      startedAt: ago(5_460_000),
      endedAt: ago(5_400_000),
    },
    {
      ...common,
      id: uuid(72),
      title: "Import ubuntu-24.04-kiosk",
      state: "done",
      phase: "seal",
      progressPercent: 100,
      failure: null,
      startedAt: ago(77_000_000),
      endedAt: ago(76_900_000),
    },
  ];
}
