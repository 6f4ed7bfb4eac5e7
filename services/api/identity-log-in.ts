/** Log-in by others than a password, joined: the identity provider, security keys, the address. */
import type { Log } from "#lib/service/log.ts";
import type { Sessions } from "./access.ts";
import type { Clock } from "./clock.ts";
import { ConsoleAddresses } from "./console-address.ts";
import { OidcClient } from "./oidc-client.ts";
import { ProviderLogIns } from "./oidc-log-in.ts";
import { IdentityProviderSettings } from "./oidc-settings.ts";
import type { Policy } from "./policy.ts";
import { SecurityKeys } from "./webauthn.ts";

export interface IdentityLogIn {
  readonly providerLogIns: ProviderLogIns;
  readonly providerSettings: IdentityProviderSettings;
  readonly securityKeys: SecurityKeys;
  readonly console: ConsoleAddresses;
}

export interface IdentityLogInOptions {
  readonly policy: Policy;
  readonly sessions: Sessions;
  readonly clock: Clock;
  readonly log: Log;
  /** Origin of the console while none is set. */
  readonly defaultConsoleUrl: () => string;
}

export function createIdentityLogIn(options: IdentityLogInOptions): IdentityLogIn {
  const { policy, sessions, clock, log } = options;
  const console = new ConsoleAddresses(policy, options.defaultConsoleUrl);
  const client = new OidcClient(clock);
  const providerLogIns = new ProviderLogIns({ policy, sessions, client, console, clock, log });
  const redirectUris = () => ({
    logIn: providerLogIns.redirectUri,
    logOut: providerLogIns.logOutRedirectUri,
  });
  return {
    console,
    providerLogIns,
    providerSettings: new IdentityProviderSettings(policy, client, clock, redirectUris),
    securityKeys: new SecurityKeys({ policy, console, clock, log }),
  };
}
