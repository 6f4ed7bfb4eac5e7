import { useState } from "preact/hooks";
import type {
  AccountSession,
  RoleDocument,
  Token,
  User,
  UserChange,
  UserCreate,
} from "../../../services/api/accounts-schema.ts";
import type { Identity, SecurityKey } from "../../../services/api/identity-schema.ts";
import { request } from "../../client.ts";
import { Checks } from "../../components/checks.tsx";
import { Confirm, Dialog } from "../../components/dialog.tsx";
import { Fetching } from "../../components/fetching.tsx";
import { Field } from "../../components/field.tsx";
import { say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { t } from "../../words/words.ts";
import { IdentityLines, KeyLines } from "../security-keys.tsx";
import { SessionLines } from "./sessions.tsx";
import { TokenLines } from "./tokens.tsx";

interface DialogProps {
  readonly roles: readonly RoleDocument[];
  onClose(): void;
  onChanged(): Promise<void>;
}
type OfUser = DialogProps & { readonly user: User };

function pathOf(user: User): string {
  return `/users/${encodeURIComponent(user.id)}`;
}

function roleOptions(roles: readonly RoleDocument[]) {
  return roles.map(({ id, description }) => ({ value: id, hint: description }));
}

export function CreateUserDialog({ roles, onClose, onChanged }: DialogProps) {
  const [given, setGiven] = useState<string[]>([]);
  const [id, setId] = useState("");
  const [password, setPassword] = useState("");
  return (
    <Dialog
      title={t("users.create")}
      verb={t("users.create")}
      disabled={id.trim() === "" || password.length < 8}
      onClose={onClose}
      onSubmit={async (form) => {
        const user: UserCreate = {
          id: id.trim(),
          displayName: String(form.get("name")).trim(),
          roles: given,
          password,
          mustChangePassword: true,
        };
        await request<User>("POST", "/users", user);
        say(t("users.created", { user: user.id }));
        await onChanged();
      }}
    >
      <Field
        label={t("users.id")}
        name="id"
        value={id}
        onInput={setId}
        hint={t("users.idHint")}
        required
      />
      <Field label={t("users.name")} name="name" />
      <Field
        label={t("users.password")}
        name="password"
        type="password"
        autocomplete="new-password"
        value={password}
        onInput={setPassword}
        hint={t("users.passwordHint")}
        required
      />
      <Checks
        legend={t("users.roles")}
        options={roleOptions(roles)}
        value={given}
        onChange={setGiven}
      />
    </Dialog>
  );
}

export function EditUserDialog({ user, roles, onClose, onChanged }: OfUser) {
  const [name, setName] = useState(user.displayName);
  const [given, setGiven] = useState<string[]>(user.roles);
  const [disabled, setDisabled] = useState(user.disabled);
  const sameRoles = [...given].sort().join() === [...user.roles].sort().join();
  const change: UserChange = {
    ...(name.trim() === user.displayName ? {} : { displayName: name.trim() }),
    ...(sameRoles ? {} : { roles: given }),
    ...(disabled === user.disabled ? {} : { disabled }),
  };
  return (
    <Dialog
      title={t("users.editTitle", { user: user.id })}
      verb={t("users.save")}
      disabled={Object.keys(change).length === 0}
      onClose={onClose}
      onSubmit={async () => {
        await request<User>("PATCH", pathOf(user), change);
        say(t("users.saved", { user: user.id }));
        await onChanged();
      }}
    >
      <Field label={t("users.name")} name="name" value={name} onInput={setName} />
      <Checks
        legend={t("users.roles")}
        options={roleOptions(roles)}
        value={given}
        onChange={setGiven}
      />
      {user.isFirst ? null : (
        <label class="check">
          <input
            type="checkbox"
            checked={disabled}
            onChange={(event) => setDisabled(event.currentTarget.checked)}
          />
          {t("users.disable")}
        </label>
      )}
    </Dialog>
  );
}

export function SetPasswordDialog({ user, onClose, onChanged }: OfUser) {
  const [password, setPassword] = useState("");
  return (
    <Dialog
      title={t("users.setPassword", { user: user.id })}
      verb={t("users.setVerb")}
      disabled={password.length < 8}
      onClose={onClose}
      onSubmit={async () => {
        await request("PUT", `${pathOf(user)}/password`, { password });
        say(t("users.set", { user: user.id }));
        await onChanged();
      }}
    >
      <p class="soft">{t("users.setLead", { user: user.id })}</p>
      <Field
        label={t("users.newPassword")}
        name="password"
        type="password"
        autocomplete="new-password"
        hint={t("password.hint")}
        value={password}
        onInput={setPassword}
      />
    </Dialog>
  );
}

export function ResetTotpDialog({ user, onClose, onChanged }: OfUser) {
  return (
    <Confirm
      title={t("users.resetTotpTitle", { user: user.id })}
      verb={t("users.resetTotpVerb")}
      losses={[t("users.resetTotpLoss", { user: user.id })]}
      onClose={onClose}
      onConfirm={async () => {
        await request("DELETE", `${pathOf(user)}/totp`);
        say(t("users.resetTotpDone", { user: user.id }));
        await onChanged();
      }}
    />
  );
}

export function DeleteUserDialog({ user, onClose, onChanged }: OfUser) {
  return (
    <Confirm
      title={t("users.deleteTitle", { user: user.id })}
      verb={t("users.deleteVerb")}
      losses={[
        t("users.deleteLoss", { user: user.id }),
        t("users.deleteLossKept", { user: user.id }),
      ]}
      typed={user.id}
      onClose={onClose}
      onConfirm={async () => {
        await request("DELETE", pathOf(user));
        say(t("users.deleted", { user: user.id }));
        await onChanged();
      }}
    />
  );
}

/** What is open in the user's name. */
export function OpenUserDialog({ user, onClose, onChanged }: OfUser) {
  const sessions = useFetched<AccountSession[]>(`${pathOf(user)}/sessions`);
  const tokens = useFetched<Token[]>(`${pathOf(user)}/tokens`);
  const mayEnd = may("users:write");
  return (
    <Dialog
      title={t("users.open", { user: user.id })}
      verb={t("users.close")}
      onlyVerb
      closable
      onClose={onClose}
      onSubmit={async () => undefined}
    >
      <section class="inset" aria-label={t("sessions.title")}>
        <h3>{t("sessions.title")}</h3>
        {sessions.value === undefined ? (
          <Fetching of={sessions} />
        ) : (
          <SessionLines
            sessions={sessions.value}
            readOnly={!mayEnd}
            path={`${pathOf(user)}/sessions`}
            onEnded={() => Promise.all([sessions.reload(), onChanged()])}
          />
        )}
      </section>
      <section class="inset" aria-label={t("tokens.title")}>
        <h3>{t("tokens.title")}</h3>
        {tokens.value === undefined ? (
          <Fetching of={tokens} />
        ) : (
          <TokenLines
            tokens={tokens.value}
            readOnly={!mayEnd}
            path={`${pathOf(user)}/tokens`}
            onDeleted={() => Promise.all([tokens.reload(), onChanged()])}
          />
        )}
      </section>
      <UserKeys user={user} />
      <UserIdentities user={user} />
    </Dialog>
  );
}

function UserKeys({ user }: { user: User }) {
  const path = `${pathOf(user)}/security-keys`;
  const keys = useFetched<SecurityKey[]>(path);
  const [removing, setRemoving] = useState<SecurityKey>();
  return (
    <section class="inset" aria-label={t("keys.title")}>
      <h3>{t("keys.title")}</h3>
      {keys.value === undefined ? (
        <Fetching of={keys} />
      ) : (
        <KeyLines
          keys={keys.value}
          none={t("keys.noneOf", { user: user.id })}
          onRemove={may("users:write") ? setRemoving : undefined}
        />
      )}
      {removing === undefined ? null : (
        <Confirm
          title={t("keys.remove", { name: removing.name })}
          verb={t("keys.removeVerb")}
          losses={[t("keys.removeLossOf", { user: user.id })]}
          onClose={() => setRemoving(undefined)}
          onConfirm={async () => {
            await request("DELETE", `${path}/${encodeURIComponent(removing.id)}`);
            say(t("keys.removed", { name: removing.name }));
            await keys.reload();
          }}
        />
      )}
    </section>
  );
}

/** Nothing where there are none: most nodes have no identity provider. */
function UserIdentities({ user }: { user: User }) {
  const path = `${pathOf(user)}/identities`;
  const identities = useFetched<Identity[]>(path);
  const [unlinking, setUnlinking] = useState<Identity>();
  if (identities.value === undefined || identities.value.length === 0) {
    return identities.failure === undefined ? null : <Fetching of={identities} />;
  }
  return (
    <section class="inset" aria-label={t("identities.title")}>
      <h3>{t("identities.title")}</h3>
      <IdentityLines
        identities={identities.value}
        onUnlink={may("users:write") ? setUnlinking : undefined}
      />
      {unlinking === undefined ? null : (
        <Confirm
          title={t("identities.unlinkTitle")}
          verb={t("identities.unlink")}
          losses={[t("identities.unlinkLossOf", { user: user.id })]}
          onClose={() => setUnlinking(undefined)}
          onConfirm={async () => {
            await request("DELETE", `${path}/${encodeURIComponent(unlinking.id)}`);
            say(t("identities.unlinked"));
            await identities.reload();
          }}
        />
      )}
    </section>
  );
}
