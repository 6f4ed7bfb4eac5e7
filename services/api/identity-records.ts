/** What stands in policy beside a user, of log-in by others than a password. */
import type { Draft, Policy } from "./policy.ts";

/** Within the change that deletes a user: another one by that name must not inherit them. */
export function forgetIdentitiesIn(draft: Draft, policy: Policy, user: string): void {
  for (const identity of policy.list("identity")) {
    if (identity.user === user) draft.delete("identity", identity.id);
  }
  forgetKeysIn(draft, policy, user);
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
