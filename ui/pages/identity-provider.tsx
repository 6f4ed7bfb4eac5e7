/** Sign-in: by which address the console is opened, and the identity provider (OpenID Connect). */
import { useState } from "preact/hooks";
import type {
  ConsoleAddress,
  IdentityProvider,
  IdentityProviderChange,
  IdentityProviderTest,
} from "../../services/api/identity-schema.ts";
import { asFailure, type Failure, request } from "../client.ts";
import { Confirm } from "../components/dialog.tsx";
import { Fetching, OldAnswer } from "../components/fetching.tsx";
import { AreaField, Field } from "../components/field.tsx";
import { Icon } from "../components/icon.tsx";
import { PageHead, Panel, Trouble } from "../components/parts.tsx";
import { say } from "../components/toast.tsx";
import { useFetched } from "../live/fetched.ts";
import { may } from "../permission.ts";
import { t } from "../words/words.ts";

export function IdentityProviderPage() {
  const provider = useFetched<IdentityProvider>("/identity-provider");
  const address = useFetched<ConsoleAddress>("/console-address");
  const none = provider.failure?.code === "NOT_FOUND";
  return (
    <>
      <PageHead title={t("page.provider")}>{t("provider.lead")}</PageHead>
      <div class="grid">
        {address.value === undefined ? (
          <Fetching of={address} />
        ) : (
          <AddressPanel key={address.value.url} of={address.value} onSaved={address.reload} />
        )}
        {none ? null : <OldAnswer of={provider} />}
        {provider.value === undefined && !none ? (
          <Fetching of={provider} />
        ) : (
          <ProviderPanel
            key={none ? "" : provider.value?.changedAt}
            of={none ? undefined : provider.value}
            redirectUri={`${address.value?.url ?? location.origin}/api/v1/login/oidc/callback`}
            onSaved={provider.reload}
          />
        )}
      </div>
    </>
  );
}

/** Runs a form's request: one at a time, what went wrong in words. */
function useSaving() {
  const [failure, setFailure] = useState<Failure>();
  const [busy, setBusy] = useState(false);
  const save = async (work: () => Promise<void>) => {
    if (busy) return;
    setBusy(true);
    setFailure(undefined);
    try {
      await work();
    } catch (error) {
      setFailure(asFailure(error));
    }
    setBusy(false);
  };
  return { failure, busy, save };
}

interface AddressProps {
  readonly of: ConsoleAddress;
  onSaved(): Promise<void>;
}

function AddressPanel({ of: address, onSaved }: AddressProps) {
  const [url, setUrl] = useState(address.url);
  const [removeKeys, setRemoveKeys] = useState(false);
  const { failure, busy, save } = useSaving();
  const mayWrite = may("settings:write");
  return (
    <Panel title={t("provider.address")} span={12}>
      <form
        aria-label={t("provider.address")}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          void save(async () => {
            const saved = await request<ConsoleAddress>("PUT", "/console-address", {
              url: url.trim() === "" ? null : url.trim(),
              removeKeys,
            });
            say(t("provider.addressSaved", { url: saved.url }));
            await onSaved();
          });
        }}
      >
        <p class="soft panel-text">{t("provider.addressLead")}</p>
        <Field
          label={t("provider.url")}
          name="url"
          hint={t("provider.urlHint")}
          value={url}
          onInput={setUrl}
        />
        {address.securityKeyProblem === null ? null : (
          <p class="panel-text">{address.securityKeyProblem}</p>
        )}
        {failure === undefined ? null : <Trouble failure={failure} />}
        {failure?.code === "IN_USE" || removeKeys ? (
          <label class="check">
            <input
              type="checkbox"
              checked={removeKeys}
              onChange={(event) => setRemoveKeys(event.currentTarget.checked)}
            />
            {t("provider.removeKeys")}
          </label>
        ) : null}
        {mayWrite ? (
          <button type="submit" class="button primary" disabled={busy || url === address.url}>
            {t("provider.addressSave")}
          </button>
        ) : null}
      </form>
    </Panel>
  );
}

interface ProviderProps {
  readonly of: IdentityProvider | undefined;
  readonly redirectUri: string;
  onSaved(): Promise<void>;
}

/** As people type it: lists one on each line. */
interface Draft {
  readonly name: string;
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string;
  readonly scopes: string;
  readonly userClaim: string;
  readonly groupsClaim: string;
  readonly groupRoles: string;
  readonly allowedGroups: string;
  readonly allowedDomains: string;
  readonly createUsers: boolean;
  readonly logOutThere: boolean;
  readonly caCertificate: string;
}

function draftOf(provider: IdentityProvider | undefined): Draft {
  return {
    name: provider?.name ?? "",
    issuer: provider?.issuer ?? "",
    clientId: provider?.clientId ?? "",
    clientSecret: "",
    scopes: (provider?.scopes ?? ["openid", "profile", "email"]).join(" "),
    userClaim: provider?.userClaim ?? "preferred_username",
    groupsClaim: provider?.groupsClaim ?? "groups",
    groupRoles: (provider?.groupRoles ?? [])
      .map(({ group, role }) => `${group} = ${role}`)
      .join("\n"),
    allowedGroups: (provider?.allowedGroups ?? []).join("\n"),
    allowedDomains: (provider?.allowedDomains ?? []).join("\n"),
    createUsers: provider?.createUsers ?? true,
    logOutThere: provider?.logOutThere ?? true,
    caCertificate: provider?.caCertificate ?? "",
  };
}

function lines(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

/** The last `=` divides: groups may have one in their names, roles don't. */
const groupRolePattern = /^(.+?)\s*=\s*([^=\s]+)$/;

function wrongGroupRole(text: string): string | undefined {
  const line = lines(text).find((each) => !groupRolePattern.test(each));
  return line === undefined ? undefined : t("provider.groupRolesWrong", { line });
}

function changeOf(draft: Draft): IdentityProviderChange {
  const { clientSecret, caCertificate } = draft;
  return {
    name: draft.name,
    issuer: draft.issuer,
    clientId: draft.clientId,
    ...(clientSecret === "" ? {} : { clientSecret }),
    scopes: draft.scopes.split(/\s+/).filter((scope) => scope !== ""),
    userClaim: draft.userClaim,
    groupsClaim: draft.groupsClaim,
    groupRoles: lines(draft.groupRoles).map((line) => {
      const [, group, role] = groupRolePattern.exec(line)!;
      return { group, role };
    }),
    allowedGroups: lines(draft.allowedGroups),
    allowedDomains: lines(draft.allowedDomains),
    createUsers: draft.createUsers,
    logOutThere: draft.logOutThere,
    caCertificate: caCertificate.trim() === "" ? null : caCertificate,
  };
}

function ProviderPanel({ of: provider, redirectUri, onSaved }: ProviderProps) {
  const [draft, setDraft] = useState(() => draftOf(provider));
  const [tested, setTested] = useState<IdentityProviderTest>();
  const [removing, setRemoving] = useState(false);
  const { failure, busy, save } = useSaving();
  const mayWrite = may("settings:write");
  const wrong = wrongGroupRole(draft.groupRoles);
  const set = (change: Partial<Draft>) => setDraft((before) => ({ ...before, ...change }));
  const text = (name: Exclude<keyof Draft, "createUsers" | "logOutThere">) => ({
    name,
    value: draft[name],
    onInput: (value: string) => set({ [name]: value }),
  });
  return (
    <Panel title={t("provider.title")} span={12}>
      <form
        aria-label={t("provider.title")}
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          if (wrong !== undefined) return;
          void save(async () => {
            await request("PUT", "/identity-provider", changeOf(draft));
            setTested(undefined);
            say(t("provider.saved"));
            await onSaved();
          });
        }}
      >
        {provider === undefined ? <p class="soft panel-text">{t("provider.none")}</p> : null}
        <Field label={t("provider.name")} hint={t("provider.nameHint")} {...text("name")} />
        <Field label={t("provider.issuer")} hint={t("provider.issuerHint")} {...text("issuer")} />
        <Field label={t("provider.clientId")} {...text("clientId")} />
        <Field
          label={t("provider.clientSecret")}
          type="password"
          autocomplete="new-password"
          hint={provider?.clientSecretSet ? t("provider.secretKept") : t("provider.secretWanted")}
          {...text("clientSecret")}
        />
        <div class="field">
          <span class="field-name">{t("provider.redirect")}</span>
          <code>{redirectUri}</code>
        </div>
        <div class="field">
          <span class="field-name">{t("provider.logOutRedirect")}</span>
          <code>{new URL("/", redirectUri).href}</code>
        </div>
        <AreaField
          label={t("provider.groupRoles")}
          hint={t("provider.groupRolesHint")}
          wrong={wrong}
          {...text("groupRoles")}
        />
        <Field label={t("provider.scopes")} hint={t("provider.scopesHint")} {...text("scopes")} />
        <Field label={t("provider.userClaim")} {...text("userClaim")} />
        <Field
          label={t("provider.groupsClaim")}
          hint={t("provider.groupsHint")}
          {...text("groupsClaim")}
        />
        <AreaField
          label={t("provider.allowedGroups")}
          hint={t("provider.allowedGroupsHint")}
          {...text("allowedGroups")}
        />
        <AreaField
          label={t("provider.allowedDomains")}
          hint={t("provider.allowedDomainsHint")}
          {...text("allowedDomains")}
        />
        <AreaField
          label={t("provider.ca")}
          hint={t("provider.caHint")}
          {...text("caCertificate")}
        />
        <label class="check">
          <input
            type="checkbox"
            checked={draft.createUsers}
            onChange={(event) => set({ createUsers: event.currentTarget.checked })}
          />
          {t("provider.createUsers")}
        </label>
        <label class="check">
          <input
            type="checkbox"
            checked={draft.logOutThere}
            onChange={(event) => set({ logOutThere: event.currentTarget.checked })}
          />
          {t("provider.logOutThere")}
        </label>
        {failure === undefined ? null : <Trouble failure={failure} />}
        {tested === undefined ? null : <TestResult of={tested} />}
        {mayWrite ? (
          <div class="actions">
            <button type="submit" class="button primary" disabled={busy || wrong !== undefined}>
              {t("provider.save")}
            </button>
            {provider === undefined ? null : (
              <>
                <button
                  type="button"
                  class="button"
                  disabled={busy}
                  onClick={() =>
                    save(async () => {
                      setTested(undefined);
                      setTested(
                        await request<IdentityProviderTest>("POST", "/identity-provider/test"),
                      );
                    })
                  }
                >
                  {busy ? t("provider.testing") : t("provider.test")}
                </button>
                <button type="button" class="button danger" onClick={() => setRemoving(true)}>
                  {t("provider.remove")}
                </button>
              </>
            )}
          </div>
        ) : null}
      </form>
      {removing && provider !== undefined ? (
        <Confirm
          title={t("provider.removeTitle")}
          verb={t("provider.remove")}
          losses={[t("provider.removeLoss", { name: provider.name })]}
          onClose={() => setRemoving(false)}
          onConfirm={async () => {
            await request("DELETE", "/identity-provider");
            say(t("provider.removed"));
            await onSaved();
          }}
        />
      ) : null}
    </Panel>
  );
}

function TestResult({ of: { ok, steps } }: { of: IdentityProviderTest }) {
  return (
    <div role="status">
      <ul class="lines">
        {steps.map((step) => (
          <li key={step.name}>
            <Icon name={step.ok ? "check" : "wrong"} />
            <span class="grow">
              <span class="name">{step.name}</span>
              <span class="under wrap">{step.message}</span>
            </span>
          </li>
        ))}
      </ul>
      {ok ? <p class="calm">{t("provider.testGood")}</p> : null}
    </div>
  );
}
