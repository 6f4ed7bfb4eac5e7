/** Made-up snapshots and schedules, typed by api's schemas: each state, and long names. */
import type { Scrub } from "#services/api/scrub-schema.ts";
import type { Differences, Snapshot, SnapshotSchedule } from "#services/api/snapshot-schema.ts";

const gib = 2 ** 30;
const hourMs = 3_600_000;
const uuid = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
const at = (ageMs: number) => new Date(Date.now() - ageMs).toISOString();

function snapshot(number: number): Snapshot {
  const scheduled = number % 3 !== 0;
  const odd: Partial<Snapshot> =
    [
      { description: "Before the database was moved to version 17", hold: true },
      {},
      { clones: [{ id: uuid(900), name: "db-copy" }] },
      { state: "creating" as const, referencedBytes: null, exclusiveBytes: null },
      { state: "missing" as const, referencedBytes: null, exclusiveBytes: null },
      { volumeName: null },
    ][number] ?? {};
  return {
    id: uuid(5000 + number),
    name: scheduled
      ? `hourly-${at(number * hourMs).replaceAll(/[-:]|\.\d+/g, "")}`
      : `before-change-${number}`,
    description: "",
    volumeId: uuid(32),
    volumeName: number % 2 === 0 ? "vm-host-data" : "scratch-with-a-rather-long-name-for-a-volume",
    groupId: uuid(6000 + number),
    state: "ready",
    hold: false,
    sizeBytes: 200 * gib,
    referencedBytes: 48.2 * gib + number,
    exclusiveBytes: (number % 7) * 0.31 * gib,
    openCount: 0,
    clones: [],
    scheduleId: scheduled ? uuid(7000) : null,
    scheduleName: scheduled ? "hourly" : null,
    createdAt: at(number * hourMs + 60_000),
    ...odd,
  };
}

function schedule(number: number, fields: Partial<SnapshotSchedule>): SnapshotSchedule {
  return {
    id: uuid(7000 + number),
    name: "hourly",
    volumeIds: [uuid(32)],
    when: { kind: "every", minutes: 60 },
    keep: { hours: 24, days: 7, weeks: 4, months: 6 },
    enabled: true,
    nextRunAt: at(-hourMs / 2),
    lastRun: { at: at(hourMs / 2), taken: 1, deleted: 1 },
    failure: null,
    timeZone: "Europe/Stockholm",
    snapshotCount: 8,
    createdAt: at(90 * 24 * hourMs),
    ...fields,
  };
}

/** `rows` snapshots; 0: nothing was ever made. */
export function snapshotDocuments(rows: number): Record<string, unknown> {
  const schedules = [
    schedule(0, {}),
    schedule(1, {
      ...{ name: "nightly", when: { kind: "daily", at: "02:30" }, keep: { last: 14 } },
      failure: "No snapshot of archive (failed).",
    }),
    schedule(2, {
      ...{ name: "weekend", when: { kind: "weekly", days: ["saturday", "sunday"], at: "23:00" } },
      ...{ keep: {}, enabled: false, nextRunAt: null, lastRun: null },
    }),
  ];
  return {
    snapshots: Array.from({ length: rows }, (_, number) => snapshot(number)),
    "snapshot-schedules": rows === 0 ? [] : schedules,
    [`volumes/${uuid(32)}/differences`]: {
      ranges: Array.from({ length: 260 }, (_, number) => ({
        offsetBytes: number * 7 * 2 ** 20,
        lengthBytes: 4096 * (1 + (number % 40)),
        zero: number % 9 === 0,
      })),
      next: null,
      changedBytes: 21.3 * 2 ** 20,
    } satisfies Differences,
    "store/scrub": {
      settings: { everyDays: 14, bytesPerSecond: 32 * 2 ** 20 },
      nextAt: at(-9 * 24 * hourMs),
      run: {
        ...{ startedAt: at(120 * hourMs), endedAt: at(118 * hourMs), state: "finished" },
        ...{ reason: null, progressPercent: 100, readBytes: 180 * gib, healed: 0 },
        ...{ badCount: 0, bad: [] },
      },
    } satisfies Scrub,
  };
}
