import { useState } from "preact/hooks";
import type { Token, TokenCreate, TokenCreated } from "../../../services/api/accounts-schema.ts";
import type { Permission } from "../../../services/api/permissions.ts";
import { request, session } from "../../client.ts";
import { Confirm, Dialog } from "../../components/dialog.tsx";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Field, Select } from "../../components/field.tsx";
import { Icon } from "../../components/icon.tsx";
import { SecretText } from "../../components/once.tsx";
import { Badge, Panel, RowAction } from "../../components/parts.tsx";
import { PermissionGrid } from "../../components/permission-grid.tsx";
import { say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { useAddressAction } from "../../router.ts";
import { formatDay, formatMoment, t } from "../../words/words.ts";

type Asked =
  | { readonly what: "create" }
  | { readonly what: "created"; readonly created: TokenCreated };

/** One's own tokens. */
export function TokensPanel() {
  const tokens = useFetched<Token[]>("/tokens");
  const [asked, setAsked] = useState<Asked>();
  useAddressAction("token", () => setAsked({ what: "create" }));
  return (
    <Panel
      title={t("tokens.title")}
      span={12}
      flush
      aside={
        <button
          type="button"
          class="button small aside"
          onClick={() => setAsked({ what: "create" })}
        >
          <Icon name="plus" />
          {t("tokens.create")}
        </button>
      }
    >
      <p class="soft panel-lead">{t("tokens.lead")}</p>
      <OldAnswer of={tokens} />
      {tokens.value === undefined ? (
        <Fetching of={tokens} />
      ) : (
        <TokenLines tokens={tokens.value} path="/tokens" onDeleted={tokens.reload} />
      )}
      {asked?.what === "create" ? (
        <CreateDialog
          onClose={() => setAsked((now) => (now?.what === "create" ? undefined : now))}
          onCreated={(created) => {
            setAsked({ what: "created", created });
            void tokens.reload();
          }}
        />
      ) : null}
      {asked?.what === "created" ? (
        <CreatedDialog created={asked.created} onClose={() => setAsked(undefined)} />
      ) : null}
    </Panel>
  );
}

interface LinesProps {
  readonly tokens: readonly Token[];
  readonly path: string;
  readonly readOnly?: boolean;
  onDeleted(): Promise<unknown>;
}

export function TokenLines({ tokens, path, readOnly = false, onDeleted }: LinesProps) {
  const [deleting, setDeleting] = useState<Token>();
  if (tokens.length === 0) return <p class="calm">{t("tokens.none")}</p>;
  return (
    <>
      <ul class="lines">
        {tokens.map((token) => (
          <li key={token.id}>
            <Icon name="key" />
            <span class="grow">
              <span class="name">{token.name}</span>
              <span class="under wrap">{factsOf(token)}</span>
            </span>
            {token.expired ? (
              <Badge tone="bad">{t("tokens.expired")}</Badge>
            ) : (
              <span class="when">{t("tokens.until", { until: formatDay(token.expiresAt) })}</span>
            )}
            {readOnly ? null : (
              <RowAction
                icon="trash"
                danger
                label={t("tokens.deleteLabel", { name: token.name })}
                onClick={() => setDeleting(token)}
              />
            )}
          </li>
        ))}
      </ul>
      {deleting === undefined ? null : (
        <Confirm
          title={t("tokens.deleteTitle", { name: deleting.name })}
          verb={t("tokens.delete")}
          losses={[t("tokens.deleteLoss")]}
          onClose={() => setDeleting(undefined)}
          onConfirm={async () => {
            await request("DELETE", `${path}/${encodeURIComponent(deleting.id)}`);
            say(t("tokens.deleted", { name: deleting.name }));
            await onDeleted();
          }}
        />
      )}
    </>
  );
}

function factsOf(token: Token): string {
  const used =
    token.lastUsedAt === null
      ? t("tokens.unused")
      : t("tokens.used", {
          when: formatMoment(token.lastUsedAt),
          address: token.lastUsedFrom ?? t("time.unknown"),
        });
  return [token.effectivePermissions.join(", "), used].filter(Boolean).join(" · ");
}

const lifetimesDays = [7, 30, 90, 365];
const dayMs = 86_400_000;
/** A year is the most that api takes; clocks differ a little. */
const marginMs = 600_000;

interface CreateProps {
  onClose(): void;
  onCreated(created: TokenCreated): void;
}

function CreateDialog({ onClose, onCreated }: CreateProps) {
  const offered = session.value?.permissions ?? [];
  const [name, setName] = useState("");
  const [days, setDays] = useState("30");
  const [permissions, setPermissions] = useState<Permission[]>([]);
  return (
    <Dialog
      title={t("tokens.create")}
      verb={t("tokens.create")}
      disabled={name.trim() === "" || permissions.length === 0}
      onClose={onClose}
      onSubmit={async () => {
        const create: TokenCreate = {
          name: name.trim(),
          permissions,
          expiresAt: new Date(Date.now() + Number(days) * dayMs - marginMs).toISOString(),
        };
        onCreated(await request<TokenCreated>("POST", "/tokens", create));
      }}
    >
      <Field
        label={t("tokens.name")}
        name="name"
        value={name}
        onInput={setName}
        hint={t("tokens.nameHint")}
      />
      <Select
        label={t("tokens.expires")}
        name="days"
        value={days}
        onChange={setDays}
        options={lifetimesDays.map((count) => ({
          value: String(count),
          label: t("tokens.days", { count }),
        }))}
      />
      <div class="field">
        <span class="field-name">{t("tokens.permissions")}</span>
        <PermissionGrid
          label={t("tokens.permissions")}
          offered={offered}
          value={permissions}
          onChange={setPermissions}
        />
        <span class="hint">{t("tokens.permissionsHint")}</span>
      </div>
    </Dialog>
  );
}

function CreatedDialog({ created, onClose }: { created: TokenCreated; onClose(): void }) {
  return (
    <Dialog
      title={t("tokens.createdTitle", { name: created.name })}
      verb={t("tokens.done")}
      onlyVerb
      onClose={onClose}
      onSubmit={async () => undefined}
    >
      <p class="soft">{t("tokens.createdLead")}</p>
      <SecretText label={t("tokens.label")} text={created.token} />
    </Dialog>
  );
}
