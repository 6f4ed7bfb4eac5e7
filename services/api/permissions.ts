/**
 * What an account may do. A route asks for one permission; a role is a list of them; an account has
 * what its roles have together. Pure: the console uses the same lists.
 *
 *   storage   volumes, images, exports         upgrade   releases and slots
 *   netboot   boot entries, clients, DHCP      users     users, roles, other people's tokens
 *   node      power, name, time, conditions    audit     the audit log
 *   network   the node's own networks          settings  TLS, identity providers
 *   backup    copies of what the node keeps
 */
export const areas = [
  "storage",
  "netboot",
  "node",
  "network",
  "upgrade",
  "users",
  "audit",
  "settings",
  "backup",
] as const;
export type Area = (typeof areas)[number];
export type Permission = `${Area}:${"read" | "write"}`;

export const permissions: readonly Permission[] = areas.flatMap((area): Permission[] => [
  `${area}:read`,
  `${area}:write`,
]);

export function isPermission(text: string): text is Permission {
  return (permissions as readonly string[]).includes(text);
}

/** What a route asks of its caller: nothing, any log-in, or a permission. */
export type Access = "anyone" | "account" | Permission;

export interface Role {
  readonly id: string;
  readonly description: string;
  readonly permissions: readonly Permission[];
}

/** The role that can't be taken from the last one who has it. */
export const adminRole = "admin";

const except = (...without: Area[]) => areas.filter((area) => !without.includes(area));
const read = (of: readonly Area[]) => of.map((area): Permission => `${area}:read`);
const write = (of: readonly Area[]) =>
  of.flatMap((area): Permission[] => [`${area}:read`, `${area}:write`]);

/** The role of one area: it, and seeing the node, without which no page makes sense. */
function areaRole(area: Area, description: string): Role {
  return { id: area, description, permissions: closure([...write([area]), "node:read"]) };
}

/** They can't be changed or deleted; a name of theirs can't be taken by another role. */
export const builtInRoles: readonly Role[] = [
  { id: adminRole, description: "Everything.", permissions },
  {
    id: "operator",
    description: "Runs what is there: storage, network boot, the node, backups.",
    permissions: closure([
      ...write(["storage", "netboot", "node", "backup"]),
      ...read(["network", "upgrade", "settings"]),
    ]),
  },
  {
    id: "read-only",
    description: "Sees everything but users and the audit log, changes nothing.",
    permissions: closure(read(except("users", "audit"))),
  },
  {
    id: "backup",
    description: "Makes and restores backups.",
    permissions: closure([...write(["backup"]), ...read(["storage", "node"])]),
  },
  areaRole("storage", "Volumes, images and exports."),
  areaRole("netboot", "Boot entries, clients and network boot."),
  areaRole("node", "Power, name, time and conditions."),
  areaRole("network", "The node's own networks."),
  areaRole("upgrade", "Upgrades, and the way back."),
  areaRole("users", "Users who may do no more than this role itself."),
  areaRole("audit", "The audit log."),
  areaRole("settings", "Certificates and identity providers."),
];

export function isBuiltInRole(id: string): boolean {
  return builtInRoles.some((role) => role.id === id);
}

/** In the list's order, once each; who may write may read. */
export function closure(given: Iterable<string>): Permission[] {
  const has = new Set(given);
  return permissions.filter(
    (permission) =>
      has.has(permission) || (permission.endsWith(":read") && has.has(writeOf(permission))),
  );
}

function writeOf(permission: Permission): string {
  return permission.replace(/:read$/, ":write");
}

/** What roles allow together. A role that is gone, or a permission of a newer release: nothing. */
export function permissionsOf(
  roleIds: readonly string[],
  customRoles: readonly Role[] = [],
): Permission[] {
  const known = [...builtInRoles, ...customRoles];
  return closure(roleIds.flatMap((id) => known.find((role) => role.id === id)?.permissions ?? []));
}

/** Names of the roles that have a permission, for whoever was refused. */
export function rolesWith(permission: Permission, customRoles: readonly Role[] = []): string[] {
  return [...builtInRoles, ...customRoles]
    .filter((role) => closure(role.permissions).includes(permission))
    .map(({ id }) => id);
}
