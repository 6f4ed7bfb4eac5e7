import { useState } from "preact/hooks";
import type { RoleDocument, User } from "../../../services/api/accounts-schema.ts";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Icon } from "../../components/icon.tsx";
import { Badge, Empty, PageHead, RowAction } from "../../components/parts.tsx";
import { Segments } from "../../components/segments.tsx";
import { type Column, Table } from "../../components/table.tsx";
import { Age } from "../../components/time.tsx";
import { type Fetched, useFetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { go, route, useAddressAction } from "../../router.ts";
import { formatList, t } from "../../words/words.ts";
import { RolesTable } from "./roles.tsx";
import {
  CreateUserDialog,
  DeleteUserDialog,
  EditUserDialog,
  OpenUserDialog,
  ResetTotpDialog,
  SetPasswordDialog,
} from "./user-dialogs.tsx";

type What = "open" | "edit" | "password" | "totp" | "delete";
type Asked = { readonly what: "create" } | { readonly what: What; readonly user: User };

export function UsersPage() {
  const users = useFetched<User[]>("/users");
  const roles = useFetched<RoleDocument[]>("/roles");
  const shown = route.value.query.has("roles") ? "roles" : "users";
  const reload = async () => {
    await Promise.all([users.reload(), roles.reload()]);
  };
  return (
    <>
      <PageHead
        title={t("page.users")}
        actions={
          <Segments
            legend={t("users.shown")}
            name="shown"
            value={shown}
            onChange={(value) => go(value === "roles" ? "/users?roles" : "/users")}
            options={[
              ["users", t("users.users")],
              ["roles", t("users.roles")],
            ]}
          />
        }
      >
        {t("users.lead")}
      </PageHead>
      {shown === "users" ? (
        <UsersTable users={users} roles={roles.value ?? []} onChanged={reload} />
      ) : (
        <RolesTable roles={roles} onChanged={reload} />
      )}
    </>
  );
}

interface UsersProps {
  readonly users: Fetched<User[]>;
  readonly roles: readonly RoleDocument[];
  onChanged(): Promise<void>;
}

function UsersTable({ users, roles, onChanged }: UsersProps) {
  const [asked, setAsked] = useState<Asked>();
  const [columns] = useState(() => columnsFor(setAsked));
  useAddressAction("new", () => setAsked({ what: "create" }));
  const close = () => setAsked(undefined);
  const dialog = { roles, onClose: close, onChanged };
  const create = may("users:write") ? (
    <button type="button" class="button primary" onClick={() => setAsked({ what: "create" })}>
      <Icon name="plus" />
      {t("users.create")}
    </button>
  ) : undefined;
  if (users.value === undefined) return <Fetching of={users} />;
  return (
    <>
      <OldAnswer of={users} />
      <Table
        label={t("users.users")}
        noun={[t("users.one"), t("users.many")]}
        rows={users.value}
        columns={columns}
        tools={create}
        rowKey={(user) => user.id}
        text={(user) => `${user.id} ${user.displayName} ${user.roles.join(" ")}`}
        onOpen={(user) => setAsked({ what: "open", user })}
        empty={
          <Empty icon="users" title={t("users.empty")}>
            {t("users.emptyDetail")}
          </Empty>
        }
      />
      {asked?.what === "create" ? <CreateUserDialog {...dialog} /> : null}
      {asked?.what === "open" ? <OpenUserDialog {...dialog} user={asked.user} /> : null}
      {asked?.what === "edit" ? <EditUserDialog {...dialog} user={asked.user} /> : null}
      {asked?.what === "password" ? <SetPasswordDialog {...dialog} user={asked.user} /> : null}
      {asked?.what === "totp" ? <ResetTotpDialog {...dialog} user={asked.user} /> : null}
      {asked?.what === "delete" ? <DeleteUserDialog {...dialog} user={asked.user} /> : null}
    </>
  );
}

function columnsFor(ask: (asked: Asked) => void): Column<User>[] {
  return [
    {
      title: t("users.column.user"),
      sort: (user) => user.displayName || user.id,
      cell: (user) => (
        <>
          <span class="name">{user.displayName || user.id}</span>
          <span class="under">
            {[user.id, user.isFirst ? t("users.first") : ""].filter(Boolean).join(" · ")}
          </span>
        </>
      ),
    },
    {
      title: t("users.column.roles"),
      width: "22%",
      from: "medium",
      sort: (user) => user.roles.join(" "),
      cell: (user) =>
        user.roles.length === 0 ? (
          <span class="soft">{t("users.noRoles")}</span>
        ) : (
          formatList(user.roles)
        ),
    },
    {
      title: t("users.column.state"),
      width: "230px",
      cell: (user) => <UserState user={user} />,
    },
    {
      title: t("users.column.seen"),
      width: "120px",
      from: "wide",
      sort: (user) => user.lastLogInAt ?? "",
      cell: (user) => (
        <span class="soft">
          {user.lastLogInAt === null ? t("users.never") : <Age at={user.lastLogInAt} />}
        </span>
      ),
    },
    {
      title: t("users.column.actions"),
      width: "172px",
      end: true,
      permission: "users:write",
      cell: (user) => <UserActions user={user} ask={ask} />,
    },
  ];
}

function UserState({ user }: { user: User }) {
  const extras = [
    user.hasTotp ? t("users.totp") : "",
    user.sessionCount === 0 ? "" : t("users.sessions", { count: user.sessionCount }),
    user.tokenCount === 0 ? "" : t("users.tokens", { count: user.tokenCount }),
  ].filter(Boolean);
  return (
    <>
      {user.disabled ? (
        <Badge tone="bad">{t("users.disabled")}</Badge>
      ) : user.mustChangePassword ? (
        <Badge tone="warn">{t("users.mustChange")}</Badge>
      ) : (
        <Badge tone="good">{t("users.active")}</Badge>
      )}
      {extras.length === 0 ? null : <span class="under">{extras.join(", ")}</span>}
    </>
  );
}

function UserActions({ user, ask }: { user: User; ask(asked: Asked): void }) {
  const name = { user: user.id };
  return (
    <div class="row-actions">
      <RowAction
        icon="edit"
        label={t("users.edit", name)}
        onClick={() => ask({ what: "edit", user })}
      />
      <RowAction
        icon="key"
        label={t("users.setPassword", name)}
        onClick={() => ask({ what: "password", user })}
      />
      <RowAction
        icon="shield"
        label={t("users.resetTotp", name)}
        disabled={!user.hasTotp}
        onClick={() => ask({ what: "totp", user })}
      />
      <RowAction
        icon="trash"
        danger
        label={t("users.delete", name)}
        disabled={user.isFirst}
        onClick={() => ask({ what: "delete", user })}
      />
    </div>
  );
}
