/** Accounts and the audit log: one part, loaded when one of its pages is first shown. */

export { IdentityProviderPage } from "../identity-provider.tsx";
export { AccountPage } from "./account.tsx";
export { AuditPage } from "./audit.tsx";
export { UsersPage } from "./users.tsx";
