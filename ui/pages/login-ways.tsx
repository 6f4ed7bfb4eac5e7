/** Log-in by others than a password: the identity provider, security keys. */
import { useEffect, useState } from "preact/hooks";
import type { LogInMethods } from "../../services/api/identity-schema.ts";
import { logInFailures, referencePattern } from "../../services/api/oidc-failures.ts";
import { asFailure, type Failure, request } from "../client.ts";
import { Icon } from "../components/icon.tsx";
import { Trouble } from "../components/parts.tsx";
import { route } from "../router.ts";
import { logInByKey } from "../security-key.ts";
import { t } from "../words/words.ts";

/** What else there is; nothing while api hasn't said, so that the form never waits. */
export function useLogInMethods(): LogInMethods | undefined {
  const [methods, setMethods] = useState<LogInMethods>();
  useEffect(() => {
    request<LogInMethods>("GET", "/login/methods").then(setMethods, () => undefined);
  }, []);
  return methods;
}

/** Why a log-in by the provider ended here; the address holds a code, never a text. */
export function returnedFailure(): Failure | undefined {
  const code = route.value.query.get("login") ?? "";
  if (!Object.hasOwn(logInFailures, code)) return undefined;
  const { title, detail } = logInFailures[code as keyof typeof logInFailures];
  const reference = route.value.query.get("reference") ?? "";
  const known = referencePattern.test(reference);
  return {
    title,
    detail: known ? t("login.reference", { detail, reference }) : detail,
    code: undefined,
  };
}

export function OtherWays() {
  const methods = useLogInMethods();
  const { failure, busy, use } = useKey();
  const returned = returnedFailure();
  const { path } = route.value;
  if (methods === undefined) return returned === undefined ? null : <Trouble failure={returned} />;
  const { identityProvider, securityKeyUrl } = methods;
  const byKey = securityKeyUrl === location.origin;
  return (
    <>
      {returned === undefined ? null : <Trouble failure={returned} />}
      {identityProvider === null && !byKey ? null : <p class="or">{t("login.or")}</p>}
      {identityProvider === null ? null : (
        <a
          class="button"
          href={`/api/v1/login/oidc/start?${new URLSearchParams({ returnTo: path })}`}
        >
          {t("login.by", { name: identityProvider.name })}
        </a>
      )}
      {byKey ? (
        <button type="button" class="button" disabled={busy} onClick={() => use()}>
          <Icon name="key" />
          {busy ? t("login.busy") : t("login.byKey")}
        </button>
      ) : null}
      {failure === undefined ? null : <Trouble failure={failure} />}
    </>
  );
}

/** The second step by a key. */
export function KeyStep({ challenge }: { challenge: string }) {
  const methods = useLogInMethods();
  const { failure, busy, use } = useKey();
  const url = methods?.securityKeyUrl;
  if (methods !== undefined && url !== location.origin) {
    const title = t("login.keyStep");
    const detail =
      url == null ? (methods.securityKeyProblem ?? undefined) : t("login.keyNeedsName", { url });
    return <Trouble failure={{ title, detail, code: undefined }} />;
  }
  return (
    <>
      <p class="soft">{t("login.keyStep")}</p>
      {failure === undefined ? null : <Trouble failure={failure} />}
      <button type="button" class="button primary" disabled={busy} onClick={() => use(challenge)}>
        <Icon name="key" />
        {busy ? t("login.busy") : t("login.byKey")}
      </button>
    </>
  );
}

function useKey() {
  const [failure, setFailure] = useState<Failure>();
  const [busy, setBusy] = useState(false);
  const use = async (challenge?: string) => {
    setBusy(true);
    setFailure(undefined);
    try {
      await logInByKey(challenge);
    } catch (error) {
      setFailure(asFailure(error));
      setBusy(false);
    }
  };
  return { failure, busy, use };
}
