/**
 * What an installation will do, decided before anything is written: disks and answers in, a plan or
 * a refusal with its reason out. Nothing here reads or writes a disk.
 *
 *     disk selector --> candidates --> exactly one --> large enough? --> a pool that isn't named?
 *         --> other data and the disk not named by path or serial? --> plan
 */
import type { Answers, DiskSelector } from "#lib/answer-file/schema.ts";
import { formatSize, parseSize } from "#lib/model/size.ts";

export interface PoolFacts {
  readonly id: string;
  /** Empty if it has none. */
  readonly name: string;
}

/** A partition, or the whole disk where a file system or pool is not in a partition. */
export interface ContentFacts {
  readonly path: string;
  readonly sizeBytes: number;
  readonly label: string | undefined;
  readonly fileSystem: string | undefined;
  readonly partitionUuid: string | undefined;
  readonly pool: PoolFacts | undefined;
}

export interface DiskFacts {
  readonly path: string;
  /** Other names: /dev/disk/by-id/… */
  readonly links: readonly string[];
  readonly sizeBytes: number;
  readonly model: string;
  readonly serial: string;
  readonly readOnly: boolean;
  /** Holds this installer or the answer file. */
  readonly medium: boolean;
  readonly partitionTable: string | undefined;
  readonly content: readonly ContentFacts[];
}

export interface ImageNeeds {
  /** Smallest disk that holds the image and a store of `minimumStoreBytes`. */
  readonly minimumDiskBytes: number;
  readonly minimumStoreBytes: number;
}

export type StorePlan =
  | { readonly kind: "new"; readonly sizeBytes: number | undefined }
  | { readonly kind: "kept"; readonly pool: PoolFacts; readonly device: string };

export interface InstallPlan {
  readonly disk: DiskFacts;
  readonly store: StorePlan;
  /** The kept store lies on `disk`: its partition stays, everything else goes. */
  readonly keepsPartition: ContentFacts | undefined;
  /** What is lost, for the console. */
  readonly erases: readonly string[];
  /** Pools that stay as they are. */
  readonly keeps: readonly string[];
}

export type PlanResult =
  | { readonly ok: true; readonly plan: InstallPlan }
  | { readonly ok: false; readonly reason: string; readonly remedy: string };

type Refusal = Extract<PlanResult, { ok: false }>;

export function planInstall(
  disks: readonly DiskFacts[],
  answers: Answers,
  needs: ImageNeeds,
): PlanResult {
  const named = namedPools(disks, [...answers.erasePools, ...asList(answers.store.pool)]);
  if (named !== undefined) return named;
  const chosen = chooseDisk(disks, answers.disk);
  if ("reason" in chosen) return chosen;
  const { disk } = chosen;
  const adopted = adoptedPool(disks, answers.store.pool);
  if (adopted !== undefined && "reason" in adopted) return adopted;
  const keepsPartition = disk.content.find((content) => content === adopted?.content);
  return (
    tooSmall(disk, answers, needs, adopted !== undefined) ??
    holdsUnnamedPool(disk, answers.erasePools, keepsPartition) ??
    holdsOtherData(disk, answers.disk, keepsPartition) ?? {
      ok: true,
      plan: {
        disk,
        store:
          adopted === undefined
            ? { kind: "new", sizeBytes: parseSize(answers.store.size ?? "") }
            : { kind: "kept", pool: adopted.pool, device: deviceOf(adopted.content) },
        keepsPartition,
        erases: disk.content
          .filter((content) => content !== keepsPartition)
          .map((content) => describeContent(content)),
        keeps: disks
          .flatMap((other) => other.content)
          .filter(({ pool, path }) => {
            if (pool === undefined) return false;
            return path === keepsPartition?.path || !disk.content.some((own) => own.path === path);
          })
          .map((content) => describeContent(content)),
      },
    }
  );
}

function refuse(reason: string, remedy: string): Refusal {
  return { ok: false, reason, remedy };
}

function asList(name: string | undefined): string[] {
  return name === undefined ? [] : [name];
}

function isNamed(pool: PoolFacts, names: readonly string[]): boolean {
  return names.includes(pool.id) || (pool.name !== "" && names.includes(pool.name));
}

/** One name that fits two pools must not decide which one is lost. */
function namedPools(disks: readonly DiskFacts[], names: readonly string[]): Refusal | undefined {
  const pools = disks.flatMap((disk) => disk.content).flatMap(({ pool }) => pool ?? []);
  for (const name of names) {
    const ids = new Set(pools.filter((pool) => isNamed(pool, [name])).map(({ id }) => id));
    if (ids.size > 1) {
      return refuse(
        `The name '${name}' fits ${ids.size} pools: ${[...ids].join(", ")}.`,
        "Name the pool by its id in the answer file.",
      );
    }
  }
  return undefined;
}

function chooseDisk(
  disks: readonly DiskFacts[],
  selector: DiskSelector,
): { disk: DiskFacts } | Refusal {
  const candidates = disks.filter((disk) => !disk.medium && !disk.readOnly && disk.sizeBytes > 0);
  const found = candidates.filter((disk) => selects(selector, disk));
  if (found.length === 1) return { disk: found[0] };
  const wanted = describeSelector(selector);
  if (found.length > 1) {
    return refuse(
      `${found.length} disks match ${wanted}: ${found.map(describeDisk).join("; ")}.`,
      "Name one by path or serial in the answer file.",
    );
  }
  if (candidates.length === 0) {
    return refuse(
      "There is no disk to install on.",
      "Attach one; this machine has none that can be written.",
    );
  }
  return refuse(
    `No disk matches ${wanted}. There are: ${candidates.map(describeDisk).join("; ")}.`,
    "Correct the answer file's disk.",
  );
}

function selects(selector: DiskSelector, disk: DiskFacts): boolean {
  if (selector === "only") return true;
  if ("path" in selector) {
    return disk.path === selector.path || disk.links.includes(selector.path);
  }
  if ("serial" in selector) return disk.serial === selector.serial;
  if ("model" in selector) return disk.model.toLowerCase() === selector.model.toLowerCase();
  return disk.sizeBytes >= parseSize(selector.minSize)!;
}

function describeSelector(selector: DiskSelector): string {
  if (selector === "only") return 'disk "only"';
  const [name, value] = Object.entries(selector)[0];
  return `${name} '${value}'`;
}

function adoptedPool(
  disks: readonly DiskFacts[],
  name: string | undefined,
): { content: ContentFacts; pool: PoolFacts } | Refusal | undefined {
  if (name === undefined) return undefined;
  for (const content of disks.flatMap((disk) => disk.content)) {
    if (content.pool !== undefined && isNamed(content.pool, [name])) {
      return { content, pool: content.pool };
    }
  }
  return refuse(
    `There is no pool '${name}' on this machine's disks.`,
    "Attach its disk, or leave out store.pool to make a new store.",
  );
}

/** A name that survives a change of the order of disks. */
function deviceOf(content: ContentFacts): string {
  return content.partitionUuid === undefined
    ? content.path
    : `/dev/disk/by-partuuid/${content.partitionUuid}`;
}

function tooSmall(
  disk: DiskFacts,
  answers: Answers,
  needs: ImageNeeds,
  adopted: boolean,
): Refusal | undefined {
  const store = adopted ? 0 : (parseSize(answers.store.size ?? "") ?? needs.minimumStoreBytes);
  const neededBytes = needs.minimumDiskBytes + Math.max(0, store - needs.minimumStoreBytes);
  if (disk.sizeBytes >= neededBytes) return undefined;
  return refuse(
    `${describeDisk(disk)} is too small: ${formatSize(neededBytes)} are needed, ${formatSize(neededBytes - disk.sizeBytes)} more than it has.`,
    "Use a larger disk.",
  );
}

function holdsUnnamedPool(
  disk: DiskFacts,
  erasePools: readonly string[],
  kept: ContentFacts | undefined,
): Refusal | undefined {
  for (const content of disk.content) {
    if (content.pool === undefined || content === kept || isNamed(content.pool, erasePools))
      continue;
    const name = content.pool.name === "" ? content.pool.id : content.pool.name;
    return refuse(
      `${disk.path} holds ${describeContent(content)}, which the answer file doesn't allow to erase.`,
      `To keep it: store.pool "${name}". To lose it: erasePools ["${name}"].`,
    );
  }
  return undefined;
}

/**
 * Data beside pools: goes only if the disk is named by path or serial. An older installation of
 * ours beside a pool that the answer file names counts as named.
 */
function holdsOtherData(
  disk: DiskFacts,
  selector: DiskSelector,
  kept: ContentFacts | undefined,
): Refusal | undefined {
  const explicit = selector !== "only" && ("path" in selector || "serial" in selector);
  if (explicit) return undefined;
  const namesPool = disk.content.some((content) => content.pool !== undefined || content === kept);
  const others = disk.content.filter(
    (content) => content.pool === undefined && !(namesPool && isOurs(content)),
  );
  if (others.length === 0) return undefined;
  const what = others.map((content) => describeContent(content)).join(", ");
  return refuse(
    `${describeDisk(disk)} holds data: ${what}.`,
    disk.serial === ""
      ? `To erase it, name the disk in the answer file: "disk": {"path": "${disk.path}"}.`
      : `To erase it, name the disk in the answer file: "disk": {"serial": "${disk.serial}"}.`,
  );
}

function isOurs(content: ContentFacts): boolean {
  return /^(keelson[-_]|_empty$)/.test(content.label ?? "");
}

export function describeDisk(disk: DiskFacts): string {
  const words = [disk.model, disk.serial === "" ? "" : `serial ${disk.serial}`].filter(Boolean);
  return `${disk.path} (${[formatSize(disk.sizeBytes), ...words].join(", ")})`;
}

export function describeContent(content: ContentFacts): string {
  if (content.pool !== undefined) {
    const { name, id } = content.pool;
    return `Keelson pool ${name === "" ? id : `'${name}' (${id})`} on ${content.path}`;
  }
  const words = [
    content.fileSystem ?? "data",
    content.label === undefined ? "" : `'${content.label}'`,
  ];
  return `${words.filter(Boolean).join(" ")} on ${content.path}, ${formatSize(content.sizeBytes)}`;
}
