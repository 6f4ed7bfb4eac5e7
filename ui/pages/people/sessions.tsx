import type { AccountSession } from "../../../services/api/accounts-schema.ts";
import { request } from "../../client.ts";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Icon } from "../../components/icon.tsx";
import { Badge, Panel } from "../../components/parts.tsx";
import { complain, say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { formatMoment, type MessageKey, t } from "../../words/words.ts";

export function howText(how: string): string {
  const key = `sessions.how.${how}` as const;
  return key in hows ? t(hows[key as keyof typeof hows]) : how;
}

const hows = {
  "sessions.how.password": "sessions.how.password",
  "sessions.how.totp": "sessions.how.totp",
  "sessions.how.recovery-code": "sessions.how.recovery-code",
  "sessions.how.webauthn": "sessions.how.webauthn",
  "sessions.how.oidc": "sessions.how.oidc",
} as const satisfies Partial<Record<MessageKey, MessageKey>>;

/** One's own sessions: what is open under one's name, and the means to end it. */
export function SessionsPanel() {
  const sessions = useFetched<AccountSession[]>("/sessions");
  const list = sessions.value;
  const others = (list ?? []).filter(({ current }) => !current).length;
  return (
    <Panel
      title={t("sessions.title")}
      span={12}
      flush
      aside={
        others === 0 ? undefined : (
          <button
            type="button"
            class="button small aside"
            onClick={() => {
              request("DELETE", "/sessions")
                .then(() => say(t("sessions.othersEnded")))
                .then(sessions.reload)
                .catch(complain);
            }}
          >
            {t("sessions.endOthers")}
          </button>
        )
      }
    >
      <OldAnswer of={sessions} />
      {list === undefined ? (
        <Fetching of={sessions} />
      ) : (
        <SessionLines sessions={list} path="/sessions" onEnded={sessions.reload} />
      )}
    </Panel>
  );
}

interface LinesProps {
  readonly sessions: readonly AccountSession[];
  /** Of the collection, for ending one. */
  readonly path: string;
  readonly readOnly?: boolean;
  onEnded(): Promise<unknown>;
}

export function SessionLines({ sessions, path, readOnly = false, onEnded }: LinesProps) {
  if (sessions.length === 0) return <p class="calm">{t("sessions.none")}</p>;
  return (
    <ul class="lines">
      {sessions.map((item) => (
        <li key={item.id}>
          <Icon name="client" />
          <span class="grow">
            <span class="name mono">{item.address}</span>
            <span class="under wrap">
              {t("sessions.line", {
                how: howText(item.how),
                since: formatMoment(item.createdAt),
                until: formatMoment(item.expiresAt),
              })}
            </span>
          </span>
          {item.current ? (
            <Badge tone="good">{t("sessions.this")}</Badge>
          ) : readOnly ? null : (
            <button
              type="button"
              class="button small"
              aria-label={t("sessions.endLabel", { address: item.address })}
              onClick={() => {
                request("DELETE", `${path}/${encodeURIComponent(item.id)}`)
                  .then(() => say(t("sessions.ended")))
                  .then(onEnded)
                  .catch(complain);
              }}
            >
              {t("sessions.end")}
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}
