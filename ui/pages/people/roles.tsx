import { useState } from "preact/hooks";
import type { RoleDocument } from "../../../services/api/accounts-schema.ts";
import { areas, type Permission } from "../../../services/api/permissions.ts";
import { request, session } from "../../client.ts";
import { Confirm, Dialog } from "../../components/dialog.tsx";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Field } from "../../components/field.tsx";
import { Icon } from "../../components/icon.tsx";
import { Badge, Empty, RowAction } from "../../components/parts.tsx";
import { PermissionGrid } from "../../components/permission-grid.tsx";
import { type Column, Table } from "../../components/table.tsx";
import { say } from "../../components/toast.tsx";
import type { Fetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { formatList, t } from "../../words/words.ts";

type Asked =
  | { readonly what: "create" }
  | { readonly what: "edit" | "delete"; readonly role: RoleDocument };

interface RolesProps {
  readonly roles: Fetched<RoleDocument[]>;
  onChanged(): Promise<void>;
}

export function RolesTable({ roles, onChanged }: RolesProps) {
  const [asked, setAsked] = useState<Asked>();
  const [columns] = useState(() => columnsFor(setAsked));
  const close = () => setAsked(undefined);
  if (roles.value === undefined) return <Fetching of={roles} />;
  return (
    <>
      <OldAnswer of={roles} />
      <Table
        label={t("users.roles")}
        noun={[t("roles.one"), t("roles.many")]}
        rows={roles.value}
        columns={columns}
        rowKey={(role) => role.id}
        text={(role) => `${role.id} ${role.description} ${role.users.join(" ")}`}
        onOpen={(role) => setAsked({ what: "edit", role })}
        tools={
          may("users:write") ? (
            <button
              type="button"
              class="button primary"
              onClick={() => setAsked({ what: "create" })}
            >
              <Icon name="plus" />
              {t("roles.create")}
            </button>
          ) : undefined
        }
        empty={
          <Empty icon="users" title={t("roles.empty")}>
            {t("roles.emptyDetail")}
          </Empty>
        }
      />
      {asked?.what === "create" ? (
        <RoleDialog subject={undefined} onClose={close} onChanged={onChanged} />
      ) : null}
      {asked?.what === "edit" ? (
        <RoleDialog subject={asked.role} onClose={close} onChanged={onChanged} />
      ) : null}
      {asked?.what === "delete" ? (
        <DeleteDialog role={asked.role} onClose={close} onChanged={onChanged} />
      ) : null}
    </>
  );
}

function columnsFor(ask: (asked: Asked) => void): Column<RoleDocument>[] {
  return [
    {
      title: t("roles.column.role"),
      sort: (role) => role.id,
      cell: (role) => (
        <>
          <span class="name">{role.id}</span>
          <span class="under" title={role.description}>
            {role.description}
          </span>
        </>
      ),
    },
    {
      title: t("roles.column.may"),
      width: "32%",
      from: "medium",
      cell: (role) => <Changes role={role} />,
    },
    {
      title: t("roles.column.users"),
      width: "180px",
      sort: (role) => role.users.length,
      cell: (role) => (
        <span class="soft clip block" title={formatList(role.users)}>
          {role.users.length === 0 ? t("roles.nobody") : formatList(role.users)}
        </span>
      ),
    },
    {
      title: t("users.column.actions"),
      width: "150px",
      end: true,
      cell: (role) => (
        <div class="row-actions">
          {role.builtIn ? <Badge tone="idle">{t("roles.builtIn")}</Badge> : null}
          <RowAction
            icon={role.builtIn ? "info" : "edit"}
            label={t(role.builtIn ? "roles.show" : "roles.edit", { role: role.id })}
            onClick={() => ask({ what: "edit", role })}
          />
          {role.builtIn || !may("users:write") ? null : (
            <RowAction
              icon="trash"
              danger
              label={t("roles.delete", { role: role.id })}
              onClick={() => ask({ what: "delete", role })}
            />
          )}
        </div>
      ),
    },
  ];
}

function Changes({ role }: { role: RoleDocument }) {
  const changed = areas.filter((area) => role.permissions.includes(`${area}:write`));
  const text =
    changed.length === 0
      ? t("account.nothing")
      : formatList(changed.map((area) => t(`area.${area}`)));
  return (
    <span class="clip block" title={text}>
      {text}
    </span>
  );
}

interface RoleDialogProps {
  /** Undefined: a new one. */
  readonly subject: RoleDocument | undefined;
  onClose(): void;
  onChanged(): Promise<void>;
}

function RoleDialog({ subject: role, onClose, onChanged }: RoleDialogProps) {
  const [id, setId] = useState("");
  const [description, setDescription] = useState(role?.description ?? "");
  const [permissions, setPermissions] = useState<Permission[]>(role?.permissions ?? []);
  const fixed = role?.builtIn === true || !may("users:write");
  const title =
    role === undefined
      ? t("roles.create")
      : t(fixed ? "roles.show" : "roles.edit", { role: role.id });
  const save = async () => {
    if (fixed) return;
    if (role === undefined) {
      await request("POST", "/roles", { id: id.trim(), description, permissions });
      say(t("roles.created", { role: id.trim() }));
    } else {
      await request("PATCH", `/roles/${encodeURIComponent(role.id)}`, {
        description,
        permissions,
      });
      say(t("roles.saved", { role: role.id }));
    }
    await onChanged();
  };
  return (
    <Dialog
      title={title}
      verb={fixed ? t("users.close") : role === undefined ? t("roles.create") : t("users.save")}
      disabled={role === undefined && id.trim() === ""}
      onlyVerb={fixed}
      closable
      onClose={onClose}
      onSubmit={save}
    >
      {role === undefined ? (
        <Field
          label={t("roles.id")}
          name="id"
          value={id}
          onInput={setId}
          hint={t("roles.idHint")}
          required
        />
      ) : null}
      {fixed ? (
        <p class="soft">{description}</p>
      ) : (
        <Field
          label={t("roles.description")}
          name="description"
          value={description}
          onInput={setDescription}
        />
      )}
      <div class="field">
        <PermissionGrid
          label={t("roles.permissions")}
          offered={fixed ? [] : (session.value?.permissions ?? [])}
          value={permissions}
          onChange={setPermissions}
        />
        {fixed ? null : <span class="hint">{t("roles.permissionsHint")}</span>}
      </div>
    </Dialog>
  );
}

interface DeleteProps {
  readonly role: RoleDocument;
  onClose(): void;
  onChanged(): Promise<void>;
}

function DeleteDialog({ role, onClose, onChanged }: DeleteProps) {
  const inUse = role.users.length > 0;
  return (
    <Confirm
      title={t("roles.deleteTitle", { role: role.id })}
      verb={t("roles.deleteVerb")}
      losses={[inUse ? t("roles.inUse", { users: formatList(role.users) }) : t("roles.deleteLoss")]}
      onClose={onClose}
      onConfirm={async () => {
        await request("DELETE", `/roles/${encodeURIComponent(role.id)}`);
        say(t("roles.deleted", { role: role.id }));
        await onChanged();
      }}
    />
  );
}
