/** What stands in policy beside a user, of log-in by others than a password. */
import { KeelsonError } from "#lib/model/errors.ts";
import type { Draft, Policy } from "./policy.ts";

/** Within the change that deletes a user: another one by that name must not inherit them. */
export function forgetIdentitiesIn(draft: Draft, policy: Policy, user: string): void {
  for (const identity of policy.list("identity")) {
    if (identity.user === user) draft.delete("identity", identity.id);
  }
  forgetKeysIn(draft, policy, user);
}

/** Within another change. NOT_FOUND unless it is that user's; IN_USE if nothing else would let them in. */
export function unlinkIn(draft: Draft, user: string, identityId: string): void {
  if (draft.get("identity", identityId)?.user !== user) {
    throw new KeelsonError("NOT_FOUND", `${user} has no such identity.`, { object: identityId });
  }
  if (draft.get("user", user)?.passwordHash === null) {
    throw new KeelsonError("IN_USE", `${user} has no password: nothing else would be left.`, {
      operation: "unlink an identity",
      object: user,
      remedy: "An administrator sets a password first; or disables or deletes the user.",
    });
  }
  draft.delete("identity", identityId);
}

/** Within another change: the user's security keys, after which a password is enough. */
export function forgetKeysIn(draft: Draft, policy: Policy, user: string): void {
  for (const key of policy.list("security-key")) {
    if (key.user === user) draft.delete("security-key", key.id);
  }
}

/** Whether a password alone is not enough for this user. */
export function hasSecurityKey(policy: Policy, user: string): boolean {
  return policy.list("security-key").some((key) => key.user === user);
}
