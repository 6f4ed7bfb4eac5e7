/** Which faults are there: judged from observations, each with its reason and what to do. */
import { type Checked, read } from "#lib/aime/checked.ts";
import {
  advance,
  type ConditionState,
  type Finding,
  judge,
  type Severity,
} from "#lib/aime/condition.ts";
import { formatSize } from "#lib/model/size.ts";
import type { SealedBy } from "#lib/seal/secret-key.ts";
import type { ServedStoreInfo } from "#services/chunk-store/schema.ts";
import type { NetworkView } from "#services/network/schema.ts";
import type { Clock } from "./clock.ts";
import { type DeliveryState, overdueMs } from "./head-delivery.ts";
import { networkFaults, networkTitles } from "./network-conditions.ts";
import type { Policy } from "./policy.ts";
import type { Observation, Problem } from "./reconciler.ts";
import type { Condition } from "./schema.ts";
import { snapshotFaults, snapshotTitles } from "./snapshot-conditions.ts";
import type { TlsState } from "./tls.ts";

/** A fault's code never changes its meaning: people filter and mute by it. */
const titles = {
  STORE_FAILED: "The chunk store has failed",
  STORE_SPACE_LOW: "The chunk store is nearly full",
  STORE_FULL: "The chunk store is full",
  STORE_CHECKSUM_ERRORS: "The chunk store found damaged blocks",
  STORE_BAD_BLOCKS: "A scrub found bad blocks",
  STORE_UNKNOWN_VOLUMES: "The chunk store has volumes that nobody asked for",
  SERVICE_UNREACHABLE: "A service does not answer",
  POLICY_BEHIND: "A service has newer policy than the cluster store",
  POLICY_NOT_APPLIED: "A change could not be carried out yet",
  VOLUME_FAILED: "A volume can't be used",
  ...snapshotTitles,
  IMAGE_IMPORT_FAILED: "An image import failed",
  NETBOOT_INTERFACE: "Network boot does not serve as asked",
  NETBOOT_OTHER_SERVER: "Another DHCP server answers on the segment",
  NETBOOT_LOADER_MISSING: "A boot loader is missing",
  CLOCK_NOT_SYNCHRONISED: "The clock is not synchronised",
  DEVELOPMENT_BUILD: "This is a development build",
  SECRETS_WEAKLY_SEALED: "Secrets are not sealed by a TPM",
  SECRETS_LOCKED: "A secret can't be opened",
  TLS_CERTIFICATE_EXPIRING: "The uploaded certificate ends soon",
  TLS_CERTIFICATE_UNUSABLE: "A certificate can't be used",
  ...networkTitles,
  SECURITY_KEY_SUSPECTED: "A security key may have been copied",
  AUDIT_LOG_FAILED: "The audit log can't be written",
  AUDIT_LOG_DAMAGED: "The audit log was tampered with",
  AUDIT_HEADS_NOT_DELIVERED: "Audit heads do not leave the node",
} as const;
export type ConditionCode = keyof typeof titles;

export interface ConditionInput {
  readonly observation: Observation;
  readonly problems: readonly Problem[];
  readonly policy: Pick<Policy, "list" | "revision" | "locked">;
  /** False on a node that isn't asked to netboot. */
  readonly netbootWanted: boolean;
  readonly clusterStore: Checked<unknown>;
  /** Null where the networks are not this node's to set up. */
  readonly network: Checked<NetworkView> | null;
  readonly clockSynchronised: Checked<boolean>;
  readonly devBuild: boolean;
  readonly sealedBy: SealedBy;
  /** Null: served without TLS. */
  readonly tls: TlsState | null;
  /** Null: heads are sent nowhere. */
  readonly headDelivery: DeliveryState | null;
  readonly audit: { readonly failure: string | null; readonly damage: string | null };
  /** By schedule id: why its last run failed. */
  readonly scheduleFailures: ReadonlyMap<string, string>;
  readonly nowMs: number;
}

interface Judgement {
  readonly code: ConditionCode;
  readonly subject: string | null;
  readonly finding: Finding;
}

/** From this share of the store in use. */
const lowShare = 0.85;
const fullShare = 0.97;

/** A fault that is there for certain. */
function fault(severity: Severity, reason: string, remedy: string | null): Finding {
  return { status: "true", severity, reason, remedy };
}

export function judgeAll(input: ConditionInput): Judgement[] {
  return [
    ...storeFaults(input),
    ...serviceFaults(input),
    ...policyFaults(input),
    ...snapshotFaults(input.policy, input.scheduleFailures),
    ...netbootFaults(input),
    ...networkFaults(input.network, input.nowMs),
    ...secretFaults(input),
    ...auditFaults(input),
    ...deliveryFaults(input),
    ...securityKeyFaults(input),
    {
      code: "CLOCK_NOT_SYNCHRONISED",
      subject: null,
      finding: judge(
        input.clockSynchronised,
        input.nowMs,
        "notice",
        (synchronised) =>
          synchronised
            ? null
            : fault(
                "notice",
                "No time server has set the clock since the node started.",
                "Give the node a time server that it can reach.",
              ),
        "A time server keeps the clock.",
      ),
    },
    {
      code: "DEVELOPMENT_BUILD",
      subject: null,
      finding: input.devBuild
        ? fault(
            "info",
            "It is signed with a throw-away key, or runs from the source tree.",
            "Install a release for anything that matters.",
          )
        : { status: "false", severity: "info", reason: "It is a release.", remedy: null },
    },
  ];
}

/** One for each key: it stays until the key is removed. */
function securityKeyFaults({ policy }: ConditionInput): Judgement[] {
  return policy
    .list("security-key")
    .filter(({ suspectedAt }) => suspectedAt !== null)
    .map(({ user, name }) => ({
      code: "SECURITY_KEY_SUSPECTED",
      subject: `${user}: ${name}`,
      finding: fault(
        "warning",
        `The key “${name}” of ${user} answered with an older counter: there may be two of it.`,
        "It is refused. Ask its owner, then remove it.",
      ),
    }));
}

function auditFaults({ audit: { failure, damage } }: ConditionInput): Judgement[] {
  const good = (reason: string): Finding => ({
    status: "false",
    severity: "info",
    reason,
    remedy: null,
  });
  return [
    {
      code: "AUDIT_LOG_FAILED",
      subject: null,
      finding:
        failure === null
          ? good("It is written.")
          : fault("critical", `${failure} No change is accepted.`, "Free space on /var."),
    },
    {
      code: "AUDIT_LOG_DAMAGED",
      subject: null,
      finding:
        damage === null
          ? good("Its newest file is as it was written.")
          : fault(
              "critical",
              damage,
              "Keep a copy, compare it with exported heads: keelson audit verify.",
            ),
    },
  ];
}

function deliveryFaults({ headDelivery }: ConditionInput): Judgement[] {
  if (headDelivery === null) return [];
  const { host, failure } = headDelivery;
  const late = failure !== null && failure.forMs >= overdueMs;
  const calm = failure === null ? "They are taken." : "The last try failed; it is tried again.";
  return [
    {
      code: "AUDIT_HEADS_NOT_DELIVERED",
      subject: null,
      finding: late
        ? fault(
            "warning",
            `${host} took none since ${failure.since}. ${failure.reason}`,
            "Mend that, then: keelson audit target test.",
          )
        : { status: "false", severity: "warning", reason: calm, remedy: null },
    },
  ];
}

/** What each state of the key means; null: nothing is wrong. */
const sealing: Record<SealedBy, Finding | null> = {
  tpm2: null,
  host: fault(
    "notice",
    "The key is sealed with a key on this node's disk: who has the whole disk can open it.",
    "Where the machine has a TPM 2.0, turn it on in the firmware: from its next start on the node seals them to it.",
  ),
  file: fault(
    "info",
    "The key is a file beside the data, as for development.",
    "On a node systemd unseals it: start api with its unit.",
  ),
};

function secretFaults({ sealedBy, tls, policy }: ConditionInput): Judgement[] {
  const found: Judgement[] = policy.locked().map(({ kind, id, why }) => ({
    code: "SECRETS_LOCKED",
    subject: `${kind}/${id}`,
    finding: fault(
      "critical",
      why,
      "Bring back this node's key; or set the secret anew, or delete what it belongs to.",
    ),
  }));
  found.push({
    code: "SECRETS_WEAKLY_SEALED",
    subject: null,
    finding: sealing[sealedBy] ?? {
      status: "false",
      severity: "notice",
      reason: "The TPM seals the key.",
      remedy: null,
    },
  });
  if (tls?.unusable) {
    found.push({
      code: "TLS_CERTIFICATE_UNUSABLE",
      subject: null,
      finding: fault("critical", tls.unusable, "Upload it again, or go back to the own CA."),
    });
  }
  if (tls?.ends?.soon) {
    const { subject, at } = tls.ends;
    found.push({
      code: "TLS_CERTIFICATE_EXPIRING",
      subject: null,
      finding: fault(
        "warning",
        `${subject} is valid until ${at}; then browsers refuse this node.`,
        "Upload a renewed one, or go back to the node's own CA.",
      ),
    });
  }
  return found;
}

function storeFaults({ observation, nowMs, policy }: ConditionInput): Judgement[] {
  const store = observation.store;
  const on = (
    code: ConditionCode,
    severity: Severity,
    decide: (info: ServedStoreInfo) => Finding | null,
    calm: string,
  ): Judgement => ({ code, subject: null, finding: judge(store, nowMs, severity, decide, calm) });
  return [
    on(
      "STORE_FAILED",
      "critical",
      (info) =>
        info.state === "mounted"
          ? null
          : fault(
              "critical",
              info.reason ?? "It gave no reason.",
              "Check the disk and its cables, then restart keelson-chunk-store.",
            ),
      "It is mounted.",
    ),
    on(
      "STORE_SPACE_LOW",
      "warning",
      (info) => {
        const share = 1 - info.freeBytes / info.sizeBytes;
        if (share < lowShare || share >= fullShare) return null;
        return fault(
          "warning",
          `${formatSize(info.freeBytes)} of ${formatSize(info.sizeBytes)} are free.`,
          "Delete volumes and images that aren't needed, or use a larger disk.",
        );
      },
      "There is room.",
    ),
    on(
      "STORE_FULL",
      "critical",
      (info) =>
        1 - info.freeBytes / info.sizeBytes < fullShare
          ? null
          : fault(
              "critical",
              `${formatSize(info.freeBytes)} of ${formatSize(info.sizeBytes)} are free: writes fail, reads go on.`,
              "Delete volumes and images that aren't needed.",
            ),
      "There is room.",
    ),
    on(
      "STORE_CHECKSUM_ERRORS",
      "critical",
      (info) =>
        info.checksumErrors === 0
          ? null
          : fault(
              "critical",
              `${info.checksumErrors} reads met a block whose checksum was wrong, since the store was mounted.`,
              "Restore what is affected from another copy, and replace the disk.",
            ),
      "Every block read had its checksum.",
    ),
    on(
      "STORE_BAD_BLOCKS",
      "critical",
      ({ badBlocks: { count, first }, device }) => {
        if (first === null) return null;
        const { block, offsetBytes } = first;
        const volume = policy.list("volume").find(({ id }) => id === first.volume)?.name;
        return fault(
          "critical",
          `${count} blocks of ${device} are bad; the first is block ${block}, of volume ${volume ?? first.volume} at offset ${offsetBytes}.`,
          "Restore these ranges from another copy (a write makes a block good), replace the disk, then scrub again: keelson scrub.",
        );
      },
      "The last scrub found none.",
    ),
    {
      code: "STORE_UNKNOWN_VOLUMES",
      subject: null,
      finding: judge(
        observation.volumes,
        nowMs,
        "notice",
        (volumes) => {
          const wanted = new Set(policy.list("volume").map(({ id }) => id));
          const strangers = volumes.filter(({ id }) => !wanted.has(id));
          if (strangers.length === 0) return null;
          const ids = strangers.slice(0, 3).map(({ id }) => id);
          return fault(
            "notice",
            `${strangers.length} volumes of the store are in no policy (${ids.join(", ")}${strangers.length > 3 ? ", ..." : ""}). They are left alone.`,
            "Was the cluster store reset, or the disk moved here from another node?",
          );
        },
        "Every volume of the store is known.",
      ),
    },
  ];
}

function serviceFaults({
  observation,
  netbootWanted,
  clusterStore,
  network,
  nowMs,
}: ConditionInput): Judgement[] {
  const services: [string, Checked<unknown>][] = [
    ["cluster-store", clusterStore],
    ["chunk-store", observation.store],
    ["iscsi-target", observation.target],
    ...(netbootWanted ? [["netboot", observation.netboot] as [string, Checked<unknown>]] : []),
    ...(network === null ? [] : [["network", network] as [string, Checked<unknown>]]),
  ];
  return services.map(([subject, checked]) => {
    const reading = read(checked, nowMs);
    // Not answering is what is judged here: it is known, unlike what the service would have said.
    const finding: Finding = reading.known
      ? { status: "false", severity: "critical", reason: "It answers.", remedy: null }
      : fault(
          "critical",
          reading.reason,
          `See systemctl status keelson-${subject}; it keeps serving what it was told before.`,
        );
    return { code: "SERVICE_UNREACHABLE", subject, finding };
  });
}

function policyFaults({ observation, policy, problems, nowMs }: ConditionInput): Judgement[] {
  const found: Judgement[] = [];
  const behind: [string, Checked<{ readonly generation: number }>][] = [
    ["iscsi-target", observation.exports],
    ["netboot", observation.netboot],
  ];
  for (const [subject, checked] of behind) {
    const reading = read(checked, nowMs);
    if (!reading.known || reading.value.generation <= policy.revision) continue;
    found.push({
      code: "POLICY_BEHIND",
      subject,
      finding: fault(
        "critical",
        `It serves generation ${reading.value.generation}; the cluster store is at ${policy.revision}: it was reset or restored. Nothing is changed there.`,
        `Restore the cluster store, or move /var/lib/keelson/${subject} away and restart the service.`,
      ),
    });
  }
  for (const problem of problems) {
    found.push({
      code: "POLICY_NOT_APPLIED",
      subject: problem.object,
      finding: fault("warning", problem.reason, "It is tried again every few seconds."),
    });
  }
  for (const { id, name, failure, state } of policy.list("volume")) {
    if (state !== "failed") continue;
    const reason = `${name}: ${failure ?? "no reason given."}`;
    found.push({
      code: "VOLUME_FAILED",
      subject: id,
      finding: fault("warning", reason, "Delete it, or bring back the disk that holds it."),
    });
  }
  for (const { id, name, failure, state } of policy.list("image")) {
    if (state !== "failed") continue;
    const reason = `${name}: ${failure ?? "no reason given."}`;
    found.push({
      code: "IMAGE_IMPORT_FAILED",
      subject: id,
      finding: fault("notice", reason, "Mend what is said, delete the image and import it again."),
    });
  }
  return found;
}

function netbootFaults({ observation, netbootWanted, nowMs }: ConditionInput): Judgement[] {
  if (!netbootWanted) return [];
  const reading = read(observation.netboot, nowMs);
  if (!reading.known) return [];
  const { interfaces, missingLoaders } = reading.value;
  const found: Judgement[] = interfaces
    .filter(({ mode }) => mode === "server")
    .map(({ name, otherServers }) => ({
      code: "NETBOOT_OTHER_SERVER",
      subject: name,
      finding:
        otherServers.length === 0
          ? { status: "false", severity: "warning", reason: "None was heard.", remedy: null }
          : fault(
              "warning",
              `${otherServers.join(", ")} gives out addresses too: clients may follow either.`,
              "Turn one of them off, or set this interface to proxy.",
            ),
    }));
  const problems: Judgement[] = interfaces.map(({ name, problem }) => ({
    code: "NETBOOT_INTERFACE",
    subject: name,
    finding:
      problem === undefined
        ? { status: "false", severity: "warning", reason: "It serves as asked.", remedy: null }
        : fault("warning", problem, "See the network page for this interface's settings."),
  }));
  found.push(...problems, {
    code: "NETBOOT_LOADER_MISSING",
    subject: null,
    finding:
      missingLoaders.length === 0
        ? { status: "false", severity: "warning", reason: "All loaders are there.", remedy: null }
        : fault(
            "warning",
            `Missing: ${missingLoaders.join(", ")}. Clients that need them can't start.`,
            "Install Debian's ipxe package.",
          ),
  });
  return found;
}

interface HeldCondition extends ConditionState {
  readonly code: ConditionCode;
  readonly subject: string | null;
}

/** Conditions over time. A subject that is gone takes its conditions along. */
export class ConditionBoard {
  readonly #clock: Clock;
  #states = new Map<string, HeldCondition>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  update(judgements: readonly Judgement[]): void {
    const next = new Map<string, HeldCondition>();
    for (const { code, subject, finding } of judgements) {
      const id = subject === null ? code : `${code}:${subject}`;
      const state = advance(this.#states.get(id), finding, this.#clock.now(), this.#clock.bootMs());
      next.set(id, { ...state, code, subject });
    }
    this.#states = next;
  }

  /** `forMs` 0 ends the mute. False: there is no such condition. */
  mute(id: string, forMs: number): boolean {
    const state = this.#states.get(id);
    if (state === undefined) return false;
    const mutedUntilMs = forMs === 0 ? null : this.#clock.bootMs() + forMs;
    this.#states.set(id, { ...state, mutedUntilMs });
    return true;
  }

  list(): Condition[] {
    const nowMs = this.#clock.bootMs();
    const nowAt = Date.parse(this.#clock.now());
    return [...this.#states].map(([id, { mutedUntilMs, code, ...state }]) => ({
      id,
      code,
      title: titles[code],
      ...state,
      mutedUntil:
        mutedUntilMs === null || mutedUntilMs <= nowMs
          ? null
          : new Date(nowAt + mutedUntilMs - nowMs).toISOString(),
    }));
  }
}
