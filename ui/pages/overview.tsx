import { formatSize } from "#lib/model/size.ts";
import type { Client, ServiceState, Store } from "../../services/api/schema.ts";
import { Icon } from "../components/icon.tsx";
import { Badge, Meter, PageHead, Panel } from "../components/parts.tsx";
import { bootStages } from "../components/stages.tsx";
import { Age, clockOffsetMs, formatAge, now } from "../components/time.tsx";
import {
  activeConditions,
  bootEntries,
  clients,
  conditions,
  images,
  isMuted,
  mayRead,
  netboot,
  node,
  store,
  tasks,
  volumes,
} from "../live/state.ts";
import { t } from "../words/words.ts";
import { severityNames, severityTones, titleOf } from "./conditions.tsx";
import { ScrubLine } from "./storage/scrub.tsx";
import { TaskState } from "./tasks.tsx";

export function OverviewPage() {
  const value = node.value;
  return (
    <>
      <PageHead title="Overview" actions={<Health />}>
        {value === undefined ? "Asking the node…" : <NodeLine />}
      </PageHead>
      <div class="grid">
        <FirstSteps />
        {mayRead("store") ? <StorePanel /> : null}
        {mayRead("clients") ? <ClientsPanel /> : null}
        {mayRead("conditions") ? <ConditionsPanel /> : null}
        {mayRead("node") ? <ServicesPanel /> : null}
        {mayRead("tasks") ? <TasksPanel /> : null}
        {mayRead("node") ? <NodePanel /> : null}
      </div>
    </>
  );
}

function NodeLine() {
  const value = node.value!;
  const upMs = now.value + clockOffsetMs.value - Date.parse(value.bootedAt);
  return (
    <>
      {value.name} · version {value.version} · up for {formatAge(upMs)}
    </>
  );
}

function Health() {
  const worst = activeConditions.value.find(
    (condition) => condition.status === "true" && !isMuted(condition, now.value),
  );
  if (conditions.value === undefined) return null;
  if (worst === undefined || worst.severity === "info" || worst.severity === "notice") {
    return (
      <span class="badge good big">
        <Icon name="check" />
        All is well
      </span>
    );
  }
  return (
    <a class={`badge big ${severityTones[worst.severity]}`} href="#/conditions">
      <Icon name="condition" />
      {titleOf(worst)}
    </a>
  );
}

/** Shown until the first machine boots: the three things that it takes. */
function FirstSteps() {
  if (
    images.value === undefined ||
    bootEntries.value === undefined ||
    netboot.value === undefined
  ) {
    return null;
  }
  const steps = [
    {
      done: images.value.some((image) => image.state === "ready"),
      title: "Upload an image",
      text: "The disk that machines start from: raw, qcow2, VMDK, VHD, VHDX or OVA.",
      href: "#/images",
    },
    {
      done: netboot.value.interfaces.some(({ settings }) => settings.mode !== "off"),
      title: "Turn network boot on",
      text: "As the network’s DHCP server, or beside the one it has.",
      href: "#/netboot",
    },
    {
      done: bootEntries.value.length > 0,
      title: "Register a client",
      text: "Say which machine boots which image.",
      href: "#/clients",
    },
  ];
  const booted = (clients.value ?? []).some(({ stage }) => stage === "san" || stage === "os");
  if (booted || steps.every((step) => step.done)) return null;
  const next = steps.findIndex((step) => !step.done);
  return (
    <Panel title="Boot your first machine" span={12} flush>
      <ol class="steps">
        {steps.map((step, index) => (
          <li key={step.title} class={step.done ? "done" : index === next ? "next" : ""}>
            <span class="step-mark">{step.done ? <Icon name="check" /> : index + 1}</span>
            <span>
              <a href={step.href}>{step.title}</a>
              <span class="under wrap">{step.text}</span>
            </span>
          </li>
        ))}
      </ol>
    </Panel>
  );
}

function StorePanel() {
  const value = store.value;
  if (value === undefined) return <Waiting title="Chunk store" span={7} />;
  const { sizeBytes, usedBytes, freeBytes } = value;
  const promised = (volumes.value ?? []).reduce((sum, volume) => sum + volume.sizeBytes, 0);
  const share = sizeBytes && usedBytes !== null ? usedBytes / sizeBytes : undefined;
  const tone = share === undefined || share < 0.8 ? "accent" : share < 0.92 ? "warn" : "bad";
  return (
    <Panel
      title="Chunk store"
      span={7}
      aside={
        value.state === "ready" ? (
          <Badge tone="good">Ready</Badge>
        ) : (
          <Badge tone="bad">{value.state === "failed" ? "Failed" : "Does not answer"}</Badge>
        )
      }
    >
      {value.message === null ? null : <p class="bad-text">{value.message}</p>}
      {sizeBytes === null || usedBytes === null || share === undefined ? (
        <p class="soft">Its figures are not known yet.</p>
      ) : (
        <>
          <p class="figure">
            {formatSize(usedBytes)} <small>of {formatSize(sizeBytes)} used</small>
          </p>
          <div class="meter-gap">
            <Meter share={share} tone={tone} label="Store in use" />
          </div>
          {value.space === null ? null : <SpaceLegend space={value.space} />}
          <div class="legend">
            {value.space === null ? (
              <span>
                <b class="number">{freeBytes === null ? "–" : formatSize(freeBytes)}</b> free
              </span>
            ) : null}
            <span>
              <b class="number">{value.volumeCount ?? "–"}</b>{" "}
              {value.volumeCount === 1 ? "volume" : "volumes"}
            </span>
            <span title="The sizes of all volumes together: thin volumes may promise more than there is">
              <b class="number">{formatSize(promised)}</b> promised
            </span>
            <span class="clip mono small">{value.device}</span>
          </div>
          <ScrubLine />
          {value.observedAt !== null &&
          now.value + clockOffsetMs.value - Date.parse(value.observedAt) > 60_000 ? (
            <p class="bad-text small">
              These figures are old: read <Age at={value.observedAt} />.
            </p>
          ) : null}
        </>
      )}
    </Panel>
  );
}

/** Its parts add up to the store's size. */
function SpaceLegend({ space }: { space: NonNullable<Store["space"]> }) {
  const parts = [
    [space.volumesBytes, t("space.volumes")],
    [space.snapshotsBytes, t("space.snapshots")],
    [space.hiddenBytes, t("space.hidden")],
    [space.metadataBytes, t("space.metadata")],
    [space.freeBytes, t("space.free")],
  ] as const;
  return (
    <ul class="legend space" aria-label={t("space.label")}>
      {parts.map(([bytes, name]) => (
        <li key={name}>
          <b class="number">{formatSize(bytes)}</b> {name}
        </li>
      ))}
    </ul>
  );
}

function stageCount(stage: Client["stage"], list: readonly Client[]): number {
  return list.filter((client) => client.bootEntryId !== null && client.stage === stage).length;
}

function ClientsPanel() {
  const entries = bootEntries.value;
  const seen = clients.value;
  if (entries === undefined || seen === undefined) return <Waiting title="Boot clients" span={5} />;
  const up = stageCount("os", seen);
  const failing = seen.filter(
    (client) => client.bootEntryId !== null && client.failure !== null,
  ).length;
  const unknown = seen.filter((client) => client.bootEntryId === null).length;
  const under = bootStages
    .filter((stage) => stage !== "os")
    .reduce((sum, stage) => sum + stageCount(stage, seen), 0);
  return (
    <Panel title="Boot clients" span={5} aside={<a href="#/clients">Show clients</a>}>
      <p class="figure">
        {up} <small>of {entries.length} run their system</small>
      </p>
      <div class="meter-gap">
        <Meter
          share={entries.length === 0 ? 0 : up / entries.length}
          tone="good"
          label="Clients that run"
        />
      </div>
      <div class="legend">
        <span>
          <b class="number">{under}</b> on the way
        </span>
        <span>
          <b class="number">{failing}</b> failing
        </span>
        <span>
          <b class="number">{unknown}</b> unknown {unknown === 1 ? "machine" : "machines"}
        </span>
      </div>
    </Panel>
  );
}

function ConditionsPanel() {
  if (conditions.value === undefined) return <Waiting title="Conditions" span={7} />;
  const open = activeConditions.value.filter((condition) => !isMuted(condition, now.value));
  return (
    <Panel title="Conditions" span={7} flush aside={<a href="#/conditions">Show all</a>}>
      {open.length === 0 ? (
        <p class="calm">
          <span class="good-icon">
            <Icon name="check" />
          </span>
          Nothing is wrong.
        </p>
      ) : (
        <ul class="lines">
          {open.slice(0, 5).map((condition) => (
            <li key={condition.id}>
              <Badge
                tone={condition.status === "unknown" ? "idle" : severityTones[condition.severity]}
              >
                {condition.status === "unknown" ? "Unknown" : severityNames[condition.severity]}
              </Badge>
              <span class="grow">
                <span class="name" title={titleOf(condition)}>
                  {titleOf(condition)}
                </span>
                <span class="under" title={condition.reason}>
                  {condition.reason}
                </span>
              </span>
              <span class="when">
                <Age at={condition.since} />
              </span>
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}

const serviceNames: Record<ServiceState["name"], string> = {
  api: "API and console",
  "cluster-store": "Cluster store",
  "chunk-store": "Chunk store",
  "iscsi-target": "iSCSI target",
  netboot: "Network boot",
};

const serviceWords = {
  running: ["good", "Running"],
  unreachable: ["bad", "Does not answer"],
  off: ["idle", "Off"],
} as const;

function ServicesPanel() {
  const value = node.value;
  if (value === undefined) return <Waiting title="Services" span={5} />;
  return (
    <Panel title="Services" span={5} flush>
      <ul class="lines tight">
        {value.services.map((service) => (
          <li key={service.name}>
            <span class="grow">
              <span class="name">{serviceNames[service.name] ?? service.name}</span>
              {service.message === null ? null : (
                <span class="under" title={service.message}>
                  {service.message}
                </span>
              )}
            </span>
            <Badge tone={serviceWords[service.state][0]}>{serviceWords[service.state][1]}</Badge>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function TasksPanel() {
  const list = tasks.value;
  if (list === undefined) return <Waiting title="Recent tasks" span={7} />;
  return (
    <Panel title="Recent tasks" span={7} flush aside={<a href="#/tasks">Show all</a>}>
      {list.length === 0 ? (
        <p class="calm">No recent tasks.</p>
      ) : (
        <ul class="lines">
          {list.slice(0, 5).map((task) => (
            <li key={task.id}>
              <span class="grow">
                <span class="name" title={task.title}>
                  {task.title}
                </span>
                {task.failure === null ? null : (
                  <span class="under bad-text" title={task.failure}>
                    {task.failure}
                  </span>
                )}
              </span>
              <span class="task-state">
                <TaskState task={task} />
              </span>
              <span class="when">
                <Age at={task.endedAt ?? task.startedAt} />
              </span>
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}

function NodePanel() {
  const value = node.value;
  if (value === undefined) return <Waiting title="Node" span={5} />;
  return (
    <Panel title="Node" span={5}>
      <dl class="facts">
        <dt>Name</dt>
        <dd>{value.name}</dd>
        <dt>Version</dt>
        <dd>{value.version}</dd>
        <dt>Addresses</dt>
        <dd class="mono">
          {value.addresses.length === 0
            ? "none"
            : value.addresses.map((item) => (
                <div key={`${item.interface} ${item.address}`}>
                  {item.address} <span class="soft">{item.interface}</span>
                </div>
              ))}
        </dd>
        <dt>iSCSI portals</dt>
        <dd class="mono">{value.portals.join(", ") || "none"}</dd>
        <dt>Clock</dt>
        <dd>
          {value.clockSynchronised === null
            ? "not known whether it is synchronised"
            : value.clockSynchronised
              ? "synchronised"
              : "not synchronised"}
        </dd>
        {value.certificateFingerprint === null ? null : (
          <>
            <dt>Certificate's CA</dt>
            <dd class="mono fingerprint">
              {value.certificateFingerprint.replaceAll(":", ":\u200b")}
            </dd>
          </>
        )}
      </dl>
    </Panel>
  );
}

function Waiting({ title, span }: { title: string; span: 5 | 7 }) {
  return (
    <Panel title={title} span={span}>
      <div class="loading flat" role="status">
        <span class="unseen">Loading</span>
        <div class="bone" />
        <div class="bone" />
      </div>
    </Panel>
  );
}
