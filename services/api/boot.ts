/**
 * Answers a client that asks for its script: finds its boot entry, makes its clone at the first
 * boot, and hands out its target only once iscsi-target serves it.
 */
import { randomInt, randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { read } from "#lib/aime/checked.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { Log } from "#lib/service/log.ts";
import type { BootAnswer, BootRequest } from "./boot-schema.ts";
import type { ClientRegistry } from "./clients.ts";
import type { Clock } from "./clock.ts";
import type { BootRecord, Draft, ImageRecord, Policy } from "./policy.ts";
import type { Reconciler } from "./reconciler.ts";

export interface BootOptions {
  readonly policy: Policy;
  readonly reconciler: Reconciler;
  readonly clients: ClientRegistry;
  readonly clock: Clock;
  readonly log: Log;
  /** `auto`: the address that the client reached netboot on. */
  readonly portalAddress: string;
  /** How long a client is kept waiting; iPXE gives up on a silent server later than this. */
  readonly patienceMs?: number;
}

const defaultPortalPort = 3260;

export async function answerBoot(options: BootOptions, request: BootRequest): Promise<BootAnswer> {
  const { policy, clients, log } = options;
  clients.report({
    mac: request.mac,
    stage: "script",
    ...(request.uuid === undefined ? {} : { uuid: request.uuid }),
    ...(request.ip === undefined ? {} : { ip: request.ip }),
    ...(request.arch === undefined ? {} : { arch: request.arch }),
  });
  const boot = findBoot(policy, request);
  if (boot === undefined) {
    const names = [request.mac, ...(request.uuid === undefined ? [] : [`UUID ${request.uuid}`])];
    clients.setFailure(request.mac, "No boot entry names this client.");
    return {
      action: "unknown",
      message: ascii(
        `No boot entry for ${names.join(", ")}. Add one on the console or with keelson boot add.`,
      ),
    };
  }
  const answer = await prepare(options, boot.id).catch((error): BootAnswer => {
    log.warn("boot request failed", { client: request.mac, why: explainError(error) });
    return { action: "error", message: explainError(error) };
  });
  if (answer.action === "error") {
    clients.setFailure(request.mac, answer.message);
    return { action: "error", message: ascii(`${boot.name}: ${answer.message}`) };
  }
  clients.setFailure(request.mac, null);
  log.info("client boots", { client: request.mac, entry: boot.name });
  return answer;
}

export function findBoot(
  policy: Policy,
  { mac, uuid }: Pick<BootRequest, "mac" | "uuid">,
): BootRecord | undefined {
  return (
    policy.claimant("boot", "boot-mac", mac) ??
    (uuid === undefined ? undefined : policy.claimant("boot", "boot-uuid", uuid))
  );
}

async function prepare(options: BootOptions, bootId: string): Promise<BootAnswer> {
  const { policy, reconciler, clock } = options;
  await policy.change((draft) => ensureClone(draft, policy, bootId, clock.now()));
  const deadline = performance.now() + (options.patienceMs ?? 20_000);
  for (;;) {
    await reconciler.settle();
    const boot = policy.get("boot", bootId);
    const volume =
      boot.cloneVolumeId === null ? undefined : policy.find("volume", boot.cloneVolumeId);
    if (volume?.state === "failed") {
      return { action: "error", message: volume.failure ?? "Its disk could not be made." };
    }
    const { target, exports } = reconciler.observation;
    const status = read(target, clock.bootMs());
    const served = read(exports, clock.bootMs());
    const entry = served.known
      ? served.value.exports.find(({ id }) => id === `boot.${bootId}`)
      : undefined;
    const matches = entry?.volumeId === boot.cloneVolumeId;
    if (volume?.state === "ready" && status.known && matches && entry?.volumeState === "ready") {
      return {
        action: "san",
        portal: `${portalHost(options.portalAddress)}:${portalPort(status.value.portals)}`,
        iqn: boot.targetIqn,
        lun: 0,
        initiatorIqn: boot.initiatorIqn,
        chap: { user: boot.chapUser, secret: boot.chapSecret },
      };
    }
    if (performance.now() > deadline) {
      const waiting = reconciler.problems[0]?.reason;
      const why = !served.known
        ? served.reason
        : (waiting ?? `The target says of its disk: ${entry?.volumeState ?? "not exported"}.`);
      return { action: "error", message: `Not ready in time. ${why}` };
    }
    await delay(200);
  }
}

/** The client's own thin clone of its image: made once, made anew after a failure or a reset. */
function ensureClone(draft: Draft, policy: Policy, bootId: string, now: string): void {
  const boot = draft.get("boot", bootId);
  if (boot === undefined)
    throw new KeelsonError("NOT_FOUND", "The boot entry was deleted meanwhile.");
  const current = boot.cloneVolumeId === null ? undefined : draft.get("volume", boot.cloneVolumeId);
  if (current?.state === "creating" || current?.state === "ready") return;
  // A lost volume may come back with its device: it isn't replaced, since its data would be.
  if (current?.state === "failed" && current.sealed === false && wasReady(current.failure)) return;
  if (current?.state === "failed") draft.put("volume", { ...current, state: "deleting" });
  const image = draft.get("image", boot.imageId);
  const parent = readyImage(image);
  const original = policy.get("volume", parent);
  const id = randomUUID();
  draft.put("volume", {
    id,
    name: boot.name,
    kind: "client",
    state: "creating",
    failure: null,
    sizeBytes: original.sizeBytes,
    parentVolumeId: parent,
    sealed: false,
    createdAt: now,
  });
  draft.put("boot", { ...boot, cloneVolumeId: id });
}

function wasReady(failure: string | null): boolean {
  return failure?.startsWith("The store no longer has") ?? false;
}

function readyImage(image: ImageRecord | undefined): string {
  if (image === undefined) throw new KeelsonError("NOT_FOUND", "Its image was deleted.");
  if (image.state !== "ready" || image.volumeId === null) {
    throw new KeelsonError("CONFLICT", `Its image ${image.name} is not ready (${image.state}).`);
  }
  return image.volumeId;
}

function portalHost(address: string): string {
  return address === "auto" ? "0.0.0.0" : address;
}

export function portalPort(portals: readonly string[]): number {
  const port = Number(portals[0]?.split(":").at(-1));
  return port > 0 ? port : defaultPortalPort;
}

/** For a boot loader's screen: one line, 7 bits. */
function ascii(text: string): string {
  return text
    .replaceAll(/[\r\n]+/g, " ")
    .replaceAll(/[^\x20-\x7e]/g, "?")
    .slice(0, 500);
}

const secretAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";

/** Letters and digits that aren't mistaken for each other: 5.8 bits each, 140 in all. */
export function makeChapSecret(length = 24): string {
  return Array.from({ length }, () => secretAlphabet[randomInt(secretAlphabet.length)]).join("");
}

/** iPXE reads names out of a script: only letters, digits, `.`, `-` and `:` are safe there. */
export function makeIqn(role: string, name: string, id: string): string {
  const plain = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9.-]+/g, "-")
    .replaceAll(/^[.-]+|[.-]+$/g, "");
  return `iqn.2026-11.org.keelson:${role}.${plain}.${id.slice(0, 8)}`;
}
