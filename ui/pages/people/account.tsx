/** One's own account: password, second step, sessions, tokens, colours. */
import { useState } from "preact/hooks";
import { areas } from "../../../services/api/permissions.ts";
import { session } from "../../client.ts";
import { PageHead, Panel } from "../../components/parts.tsx";
import { useAddressAction } from "../../router.ts";
import { chooseTheme, chosenTheme, type Theme } from "../../theme.ts";
import { formatList, formatMoment, t } from "../../words/words.ts";
import { IdentitiesPanel, SecurityKeysPanel } from "../security-keys.tsx";
import { PasswordDialog } from "./password.tsx";
import { SessionsPanel } from "./sessions.tsx";
import { TokensPanel } from "./tokens.tsx";
import { TotpPanel } from "./totp.tsx";

export function AccountPage() {
  return (
    <>
      <PageHead title={t("page.account")}>{t("account.lead")}</PageHead>
      <div class="grid">
        <YouPanel />
        <PasswordPanel />
        <TotpPanel />
        <ColoursPanel />
        <SecurityKeysPanel />
        <IdentitiesPanel />
        <SessionsPanel />
        <TokensPanel />
      </div>
    </>
  );
}

function YouPanel() {
  const you = session.value;
  if (you == null) return null;
  const changed = areas.filter((area) => you.permissions.includes(`${area}:write`));
  const seen = areas.filter(
    (area) => you.permissions.includes(`${area}:read`) && !changed.includes(area),
  );
  const named = (list: readonly (typeof areas)[number][]) =>
    list.length === 0 ? t("account.nothing") : formatList(list.map((area) => t(`area.${area}`)));
  return (
    <Panel title={t("account.you")} span={7}>
      <dl class="facts">
        <dt>{t("account.user")}</dt>
        <dd>{you.user}</dd>
        {you.displayName === you.user ? null : (
          <>
            <dt>{t("account.name")}</dt>
            <dd>{you.displayName}</dd>
          </>
        )}
        <dt>{t("account.roles")}</dt>
        <dd>{you.roles.length === 0 ? t("account.noRoles") : formatList(you.roles)}</dd>
        <dt>{t("account.may")}</dt>
        <dd>{named(changed)}</dd>
        {seen.length === 0 ? null : (
          <>
            <dt>{t("account.maySee")}</dt>
            <dd>{named(seen)}</dd>
          </>
        )}
        <dt>{t("account.until")}</dt>
        <dd>{formatMoment(you.expiresAt)}</dd>
      </dl>
    </Panel>
  );
}

function PasswordPanel() {
  const [changing, setChanging] = useState(false);
  useAddressAction("password", () => setChanging(true));
  return (
    <Panel title={t("password.title")} span={5}>
      <p class="soft panel-text">{t("password.lead")}</p>
      <button type="button" class="button" onClick={() => setChanging(true)}>
        {t("password.change")}
      </button>
      {changing ? <PasswordDialog onClose={() => setChanging(false)} /> : null}
    </Panel>
  );
}

const themes: readonly [Theme | undefined, "account.system" | "account.light" | "account.dark"][] =
  [
    [undefined, "account.system"],
    ["light", "account.light"],
    ["dark", "account.dark"],
  ];

function ColoursPanel() {
  return (
    <Panel title={t("account.colours")} span={5}>
      <fieldset>
        <legend class="unseen">{t("account.colours")}</legend>
        <div class="segments">
          {themes.map(([choice, label]) => (
            <label key={label}>
              <input
                type="radio"
                name="colours"
                checked={chosenTheme.value === choice}
                onChange={() => chooseTheme(choice)}
              />
              {t(label)}
            </label>
          ))}
        </div>
      </fieldset>
    </Panel>
  );
}
