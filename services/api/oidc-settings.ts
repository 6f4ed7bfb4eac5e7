/** The identity provider's settings: what may be set by whom, and whether they work. */

import type { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { customRoles } from "./account-records.ts";
import type { Clock } from "./clock.ts";
import type {
  IdentityProvider,
  IdentityProviderRecord,
  IdentityProviderTest,
  identityProviderChangeSchema,
} from "./identity-schema.ts";
import { endSessionEndpoint, explain, type OidcClient, shown } from "./oidc-client.ts";
import { type Permission, permissionsOf, type Role } from "./permissions.ts";
import type { Policy } from "./policy.ts";

type Change = z.output<typeof identityProviderChangeSchema>;
const recordId = "provider";

export class IdentityProviderSettings {
  readonly #policy: Policy;
  readonly #client: OidcClient;
  readonly #clock: Clock;
  readonly #redirectUris: () => { readonly logIn: string; readonly logOut: string };

  constructor(
    policy: Policy,
    client: OidcClient,
    clock: Clock,
    redirectUris: () => { readonly logIn: string; readonly logOut: string },
  ) {
    this.#policy = policy;
    this.#client = client;
    this.#clock = clock;
    this.#redirectUris = redirectUris;
  }

  find(): IdentityProviderRecord | undefined {
    return this.#policy.find("identity-provider", recordId);
  }

  /** Without the secret. NOT_FOUND where none is set up. */
  view(): IdentityProvider {
    const { clientSecret, id: _, ...rest } = this.#record();
    const { logIn: redirectUri, logOut: logOutRedirectUri } = this.#redirectUris();
    return { ...rest, clientSecretSet: clientSecret !== "", redirectUri, logOutRedirectUri };
  }

  /**
   * INVALID_ARGUMENT for a role that doesn't exist or a secret that is missing; PERMISSION_DENIED
   * for a role that may do more than `own`: who sets the provider up decides who is in which group.
   */
  async set(change: Change, own: readonly Permission[]): Promise<IdentityProvider> {
    const roles = customRoles(this.#policy);
    for (const { role } of change.groupRoles) checkRole(role, roles, own);
    await this.#policy.change((draft) => {
      const before = draft.get("identity-provider", recordId);
      const { clientSecret = before?.clientSecret, ...rest } = change;
      if (clientSecret === undefined) {
        throw new KeelsonError("INVALID_ARGUMENT", "clientSecret: Give the client's secret.", {
          remedy: "The provider shows it where this node is registered.",
        });
      }
      // To another issuer a kept secret would be told to whoever runs that one.
      if (
        before !== undefined &&
        before.issuer !== rest.issuer &&
        change.clientSecret === undefined
      ) {
        throw new KeelsonError(
          "INVALID_ARGUMENT",
          "clientSecret: Another issuer has another secret.",
          {
            remedy: "Give the secret together with the new issuer.",
          },
        );
      }
      const changedAt = later(this.#clock.now(), before?.changedAt);
      draft.put("identity-provider", { id: recordId, ...rest, clientSecret, changedAt });
    });
    this.#client.forget();
    return this.view();
  }

  /** Users and what they are linked to stay; sessions too, until they end. */
  async remove(): Promise<void> {
    this.#record();
    await this.#policy.change((draft) => draft.delete("identity-provider", recordId));
    this.#client.forget();
  }

  /** Asks the provider now, step by step, and names the first thing that is wrong. */
  async test(): Promise<IdentityProviderTest> {
    const settings = this.#record();
    const steps: IdentityProviderTest["steps"] = [];
    const step = async (name: string, work: () => Promise<string>): Promise<boolean> => {
      try {
        steps.push({ name, ok: true, message: await work() });
        return true;
      } catch (error) {
        steps.push({ name, ok: false, message: sentence(explain(error).detail) });
        return false;
      }
    };
    const ok =
      (await step("Metadata", async () => {
        const { issuer } = await this.#client.probe(settings);
        return `${shown(issuer)} answers and is the issuer that is set.`;
      })) &&
      (await step("Keys", async () => {
        const count = await this.#client.probeKeys(settings);
        return count === 1 ? "It publishes one key." : `It publishes ${count} keys.`;
      })) &&
      (await step("Client", async () => {
        await this.#client.probeSecret(settings, this.#redirectUris().logIn);
        return "It takes the client's id and secret.";
      })) &&
      (await step("Log-out", async () => {
        if (!settings.logOutThere) return "Logging out is here alone, as is set.";
        const endpoint = endSessionEndpoint(await this.#client.metadata(settings));
        if (endpoint === null) return "It has no page for it: logging out is here alone.";
        const { logOut } = this.#redirectUris();
        return `It has a page for it. Have ${logOut} registered there as where to come back to.`;
      }));
    this.#client.forget();
    return { ok, steps };
  }

  #record(): IdentityProviderRecord {
    const record = this.find();
    if (record !== undefined) return record;
    throw new KeelsonError("NOT_FOUND", "No identity provider is set up.", {
      remedy: "PUT /identity-provider, or `keelson identity-provider set`.",
    });
  }
}

function checkRole(role: string, custom: readonly Role[], own: readonly Permission[]): void {
  const permissions = permissionsOf([role], custom);
  if (permissions.length === 0) {
    throw new KeelsonError("INVALID_ARGUMENT", `groupRoles: There is no role ${shown(role)}.`, {
      object: role,
      remedy: "GET /roles, or `keelson role list`, shows them.",
    });
  }
  const beyond = permissions.filter((permission) => !own.includes(permission));
  if (beyond.length === 0) return;
  throw new KeelsonError("PERMISSION_DENIED", `You may not give the role ${role}.`, {
    object: role,
    remedy: `It allows what you are not allowed: ${beyond.join(", ")}.`,
  });
}

/** Two changes in the same millisecond, or after the clock was set back, still differ. */
function later(now: string, before: string | undefined): string {
  if (before === undefined || now > before) return now;
  return new Date(Date.parse(before) + 1).toISOString();
}

function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
}
