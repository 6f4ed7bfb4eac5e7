/** One's own security keys, and one's account at the identity provider. */
import { useState } from "preact/hooks";
import type { Identity, LogInMethods, SecurityKey } from "../../services/api/identity-schema.ts";
import { request } from "../client.ts";
import { Confirm, Dialog } from "../components/dialog.tsx";
import { Fetching, OldAnswer } from "../components/fetching.tsx";
import { Field } from "../components/field.tsx";
import { Icon } from "../components/icon.tsx";
import { Badge, Panel, RowAction, Trouble } from "../components/parts.tsx";
import { complain, say } from "../components/toast.tsx";
import { useFetched } from "../live/fetched.ts";
import { registerKey } from "../security-key.ts";
import { formatMoment, t } from "../words/words.ts";
import { returnedFailure } from "./login-ways.tsx";

type Asked =
  | { readonly what: "add" }
  | { readonly what: "rename" | "remove"; readonly key: SecurityKey };

export function SecurityKeysPanel() {
  const keys = useFetched<SecurityKey[]>("/session/security-keys");
  const methods = useFetched<LogInMethods>("/login/methods");
  const [asked, setAsked] = useState<Asked>();
  const close = () => {
    setAsked(undefined);
    void keys.reload();
  };
  const url = methods.value?.securityKeyUrl;
  const here = url === location.origin;
  return (
    <Panel
      title={t("keys.title")}
      span={12}
      flush
      aside={
        here ? (
          <button
            type="button"
            class="button small aside"
            onClick={() => setAsked({ what: "add" })}
          >
            <Icon name="plus" />
            {t("keys.add")}
          </button>
        ) : undefined
      }
    >
      <p class="soft panel-lead">{t("keys.lead")}</p>
      {methods.value === undefined || here ? null : (
        <p class="panel-lead">
          {url == null ? methods.value.securityKeyProblem : t("keys.elsewhere", { url })}
        </p>
      )}
      <OldAnswer of={keys} />
      {keys.value === undefined ? (
        <Fetching of={keys} />
      ) : (
        <KeyLines
          keys={keys.value}
          none={t("keys.none")}
          onRename={(key) => setAsked({ what: "rename", key })}
          onRemove={(key) => setAsked({ what: "remove", key })}
        />
      )}
      {asked?.what === "add" ? <AddDialog onClose={close} /> : null}
      {asked?.what === "rename" ? <RenameDialog of={asked.key} onClose={close} /> : null}
      {asked?.what === "remove" ? <RemoveDialog of={asked.key} onClose={close} /> : null}
    </Panel>
  );
}

interface LinesProps {
  readonly keys: readonly SecurityKey[];
  /** Said where there is none. */
  readonly none: string;
  onRename?(key: SecurityKey): void;
  onRemove?: ((key: SecurityKey) => void) | undefined;
}

export function KeyLines({ keys, none, onRename, onRemove }: LinesProps) {
  if (keys.length === 0) return <p class="calm">{none}</p>;
  return (
    <ul class="lines">
      {keys.map((key) => (
        <li key={key.id}>
          <Icon name="key" />
          <span class="grow">
            <span class="name">{key.name}</span>
            <span class="under wrap">
              {key.rpId} ·{" "}
              {key.lastUsedAt === null
                ? t("keys.unused")
                : t("keys.used", { when: formatMoment(key.lastUsedAt) })}
            </span>
          </span>
          {key.suspectedAt !== null ? <Badge tone="bad">{t("keys.suspected")}</Badge> : null}
          {key.backedUp ? <Badge tone="idle">{t("keys.passkey")}</Badge> : null}
          {onRename === undefined ? null : (
            <RowAction
              icon="edit"
              label={t("keys.rename", { name: key.name })}
              onClick={() => onRename(key)}
            />
          )}
          {onRemove === undefined ? null : (
            <RowAction
              icon="trash"
              danger
              label={t("keys.remove", { name: key.name })}
              onClick={() => onRemove(key)}
            />
          )}
        </li>
      ))}
    </ul>
  );
}

function AddDialog({ onClose }: { onClose(): void }) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  return (
    <Dialog
      title={t("keys.addTitle")}
      verb={t("keys.next")}
      disabled={name.trim() === "" || password === ""}
      onClose={onClose}
      onSubmit={async () => {
        const key = await registerKey(name.trim(), password);
        say(t("keys.added", { name: key.name }));
      }}
    >
      <Field
        label={t("keys.name")}
        name="name"
        hint={t("keys.nameHint")}
        value={name}
        onInput={setName}
      />
      <Field
        label={t("keys.password")}
        name="password"
        type="password"
        autocomplete="current-password"
        hint={t("keys.passwordHint")}
        value={password}
        onInput={setPassword}
      />
    </Dialog>
  );
}

interface KeyDialogProps {
  readonly of: SecurityKey;
  onClose(): void;
}

const pathOf = (key: SecurityKey) => `/session/security-keys/${encodeURIComponent(key.id)}`;

function RenameDialog({ of: key, onClose }: KeyDialogProps) {
  const [name, setName] = useState(key.name);
  return (
    <Dialog
      title={t("keys.rename", { name: key.name })}
      verb={t("keys.renameVerb")}
      disabled={name.trim() === ""}
      onClose={onClose}
      onSubmit={async () => {
        await request("PATCH", pathOf(key), { name: name.trim() });
      }}
    >
      <Field label={t("keys.name")} name="name" value={name} onInput={setName} />
    </Dialog>
  );
}

function RemoveDialog({ of: key, onClose }: KeyDialogProps) {
  return (
    <Confirm
      title={t("keys.remove", { name: key.name })}
      verb={t("keys.removeVerb")}
      losses={[t("keys.removeLoss")]}
      onClose={onClose}
      onConfirm={async (form) => {
        const password = String(form.get("password"));
        await request("POST", `${pathOf(key)}/remove`, { password });
        say(t("keys.removed", { name: key.name }));
      }}
    >
      <Field
        label={t("keys.password")}
        name="password"
        type="password"
        autocomplete="current-password"
      />
    </Confirm>
  );
}

/** Nothing where no provider is set up and none was. */
export function IdentitiesPanel() {
  const identities = useFetched<Identity[]>("/session/identities");
  const methods = useFetched<LogInMethods>("/login/methods");
  const [removing, setRemoving] = useState<Identity>();
  const provider = methods.value?.identityProvider ?? null;
  const returned = returnedFailure();
  const list = identities.value ?? [];
  if (provider === null && list.length === 0) return null;
  const link = async () => {
    const { url } = await request<{ url: string }>("POST", "/session/identities");
    location.assign(url);
  };
  return (
    <Panel title={t("identities.title")} span={12} flush>
      <p class="soft panel-lead">{t("identities.lead")}</p>
      {returned === undefined ? null : <Trouble failure={returned} />}
      <IdentityLines identities={list} onUnlink={setRemoving} />
      {list.length > 0 || provider === null ? null : (
        <p class="panel-lead">
          {t("identities.none", { name: provider.name })}{" "}
          <button type="button" class="button small" onClick={() => link().catch(complain)}>
            {t("identities.link", { name: provider.name })}
          </button>
        </p>
      )}
      {removing === undefined ? null : (
        <Confirm
          title={t("identities.unlinkTitle")}
          verb={t("identities.unlink")}
          losses={[t("identities.unlinkLoss")]}
          onClose={() => setRemoving(undefined)}
          onConfirm={async () => {
            await request("DELETE", `/session/identities/${removing.id}`);
            say(t("identities.unlinked"));
            await identities.reload();
          }}
        />
      )}
    </Panel>
  );
}

interface IdentityLinesProps {
  readonly identities: readonly Identity[];
  onUnlink?: ((identity: Identity) => void) | undefined;
}

export function IdentityLines({ identities, onUnlink }: IdentityLinesProps) {
  return (
    <ul class="lines">
      {identities.map((identity) => (
        <li key={identity.id}>
          <Icon name="user" />
          <span class="grow">
            <span class="name">{identity.subject}</span>
            <span class="under wrap">
              {identity.issuer} · {t(identity.created ? "identities.created" : "identities.linked")}
            </span>
          </span>
          {onUnlink === undefined ? null : (
            <RowAction
              icon="trash"
              danger
              label={t("identities.unlink")}
              onClick={() => onUnlink(identity)}
            />
          )}
        </li>
      ))}
    </ul>
  );
}
