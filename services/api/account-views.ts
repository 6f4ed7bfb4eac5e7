/** The documents of accounts and log-in, for the events; their own routes give the same ones. */
import type { Sessions } from "./access.ts";
import type { Accounts } from "./accounts.ts";
import { type Documents, Owned } from "./events.ts";
import type { HeadDelivery } from "./head-delivery.ts";
import type { IdentityLogIn } from "./identity-log-in.ts";
import type { Policy } from "./policy.ts";
import { type AccountResource, accountResources, type EventResource } from "./schema.ts";
import type { Tokens } from "./tokens.ts";

export function isAccountResource(resource: EventResource): resource is AccountResource {
  return (accountResources as readonly EventResource[]).includes(resource);
}

export interface AccountViewSources {
  readonly policy: Policy;
  readonly accounts: Accounts;
  readonly sessions: Sessions;
  readonly tokens: Tokens;
  readonly identityLogIn: IdentityLogIn;
  readonly headDelivery: HeadDelivery;
}

export function accountDocuments(from: AccountViewSources, resource: AccountResource): Documents {
  const { console, providerSettings, securityKeys } = from.identityLogIn;
  switch (resource) {
    case "users":
      return byId(from.accounts.listUsers());
    case "roles":
      return byId(from.accounts.listRoles());
    case "sessions":
      return owned(from.sessions.list(), ({ user }) => user);
    case "tokens":
      return owned(from.tokens.list(), ({ user }) => user);
    case "session/identities":
      return owned(from.policy.list("identity"), ({ user }) => user);
    case "session/security-keys":
      return new Map(
        from.policy.list("security-key").map((record) => {
          const document = securityKeys.document(record);
          return [document.id, new Owned(record.user, document)];
        }),
      );
    case "identity-provider":
      return providerSettings.find() === undefined ? new Map() : single(providerSettings.view());
    case "console-address":
      return single(console.view());
    case "settings/audit-target":
      return single(from.headDelivery.view());
  }
}

function byId(documents: readonly { readonly id: string }[]): Documents {
  return new Map(documents.map((document) => [document.id, document]));
}

function owned<Document extends { readonly id: string }>(
  documents: readonly Document[],
  ownerOf: (document: Document) => string,
): Documents {
  return new Map(
    documents.map((document) => [document.id, new Owned(ownerOf(document), document)]),
  );
}

function single(document: unknown): Documents {
  return new Map([["", document]]);
}
