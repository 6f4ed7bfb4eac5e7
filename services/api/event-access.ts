/** Who hears of a resource's changes. Used by api and by the console: no other imports. */
import type { Permission } from "./permissions.ts";
import type { EventResource } from "./schema.ts";

/** A permission: whoever has it. `own`: each account of what belongs to it, and of nothing else. */
export const eventReaders: Readonly<Record<EventResource, Permission | "own">> = {
  node: "node:read",
  store: "storage:read",
  volumes: "storage:read",
  images: "storage:read",
  "boot-entries": "netboot:read",
  clients: "netboot:read",
  exports: "storage:read",
  snapshots: "storage:read",
  "snapshot-schedules": "storage:read",
  netboot: "netboot:read",
  conditions: "node:read",
  tasks: "node:read",
  upgrade: "upgrade:read",
  users: "users:read",
  roles: "users:read",
  sessions: "own",
  tokens: "own",
  "session/identities": "own",
  "session/security-keys": "own",
  "identity-provider": "settings:read",
  "console-address": "settings:read",
  "settings/audit-target": "settings:read",
};
