/** What the account may do, as the session says. api refuses the rest in any case. */
import type { Permission } from "../services/api/permissions.ts";
import { session } from "./client.ts";

export type { Permission };

export function may(permission: Permission): boolean {
  return session.value?.permissions.includes(permission) ?? false;
}
