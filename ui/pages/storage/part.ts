/** Snapshots and schedules: one part, loaded when it is first shown. */
export { SnapshotsPage } from "./snapshots.tsx";
