/**
 * Formats of what a node keeps on /var and in its store, by name, over versions
 * (docs/formats/upgrade.md, decision 0155). A version reads a range of each; which one it writes is
 * the node's to say (`held.ts`): while a new version is on trial, the old slot must be able to read
 * all that it leaves.
 */
export interface FormatRange {
  readonly oldest: number;
  readonly newest: number;
}

/** What this version reads. A new format of anything on /var is one more number here. */
export const dataFormats = {
  /** api: its audit log (lib/audit). */
  audit: { oldest: 1, newest: 1 },
  /** chunk-store: the store's device. */
  "chunk-store": { oldest: 0, newest: 1 },
  /** iscsi-target: exports.json; 1 was never released. */
  exports: { oldest: 1, newest: 2 },
  /** netboot: policy.json, leases.jsonl. */
  netboot: { oldest: 1, newest: 1 },
  /** network: confirmed.json, pending.json. */
  network: { oldest: 1, newest: 1 },
  /** node.json: written once, by the installer. */
  node: { oldest: 1, newest: 1 },
  /** api: records in the cluster store. */
  policy: { oldest: 1, newest: 1 },
  /** api: an uploaded certificate. */
  tls: { oldest: 1, newest: 1 },
  /** firmware-updater: state.json. */
  upgrade: { oldest: 1, newest: 1 },
} as const satisfies Readonly<Record<string, FormatRange>>;

export type FormatName = keyof typeof dataFormats;

/**
 * What the first release wrote: what a node holds as long as it doesn't say otherwise. Frozen. A
 * name that a later version brings begins at its own first number.
 */
export const firstFormats: Readonly<Record<FormatName, number>> = {
  audit: 1,
  "chunk-store": 0,
  exports: 2,
  netboot: 1,
  network: 1,
  node: 1,
  policy: 1,
  tls: 1,
  upgrade: 1,
};

/** Of a node: the newest format that may be there, by name. */
export type HeldFormats = Readonly<Record<string, number>>;

/** The format that a reader of `range` writes on a node that holds `held`. */
export function formatToWrite(range: FormatRange, held: number): number {
  return Math.min(Math.max(held, range.oldest), range.newest);
}

/** What a node holds once a version that reads `ranges` is kept on it: never less than before. */
export function raised(
  held: HeldFormats,
  ranges: Readonly<Record<string, FormatRange>>,
): HeldFormats {
  const next: Record<string, number> = { ...held };
  for (const [name, { newest }] of Object.entries(ranges)) {
    next[name] = Math.max(next[name] ?? newest, newest);
  }
  return next;
}

/** What of `held` a version can't read, in words, such as `network: format 2; it reads 1`. */
export function unreadable(
  ranges: Readonly<Record<string, FormatRange>>,
  held: HeldFormats,
): string | undefined {
  for (const [name, present] of Object.entries(held)) {
    const reads = Object.hasOwn(ranges, name) ? ranges[name] : undefined;
    if (reads !== undefined && present >= reads.oldest && present <= reads.newest) continue;
    return `${name}: format ${present}; it reads ${reads === undefined ? "none" : rangeText(reads)}`;
  }
  return undefined;
}

export function rangeText({ oldest, newest }: FormatRange): string {
  return oldest === newest ? String(oldest) : `${oldest} to ${newest}`;
}
