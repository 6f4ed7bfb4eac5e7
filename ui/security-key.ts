/** Security keys: between api and the browser. The package for it comes when a key is first used. */
import type { SecurityKey } from "../services/api/identity-schema.ts";
import type { SessionInfo } from "../services/api/schema.ts";
import { type Failure, RequestError, request, session } from "./client.ts";
import { t } from "./words/words.ts";

const load = () => import("@simplewebauthn/browser");

/** Logs in; after a password where `challenge` is given. Throws RequestError. */
export async function logInByKey(challenge?: string): Promise<void> {
  const asked = challenge === undefined ? {} : { challenge };
  const optionsJSON = await request<never>("POST", "/login/security-key/options", asked);
  const { startAuthentication } = await load();
  const response = await startAuthentication({ optionsJSON }).catch(explain);
  session.value = await request<SessionInfo>("POST", "/login/security-key", { ...asked, response });
}

/** Registers a key for one's own account. Throws RequestError. */
export async function registerKey(name: string, password: string): Promise<SecurityKey> {
  const optionsJSON = await request<never>("POST", "/session/security-keys/options", { password });
  const { startRegistration } = await load();
  const response = await startRegistration({ optionsJSON }).catch(explain);
  return await request<SecurityKey>("POST", "/session/security-keys", { name, response });
}

/** The browser's errors (WebAuthn sections 5.1.3 and 5.1.4), in words. */
function explain(error: unknown): never {
  throw new RequestError(failureOf(error instanceof Error ? error.name : ""));
}

function failureOf(name: string): Failure {
  if (name === "InvalidStateError")
    return { title: t("key.known"), detail: undefined, code: undefined };
  if (name === "SecurityError" || name === "NotSupportedError") {
    return { title: t("key.insecure"), detail: t("key.insecureDetail"), code: undefined };
  }
  return { title: t("key.cancelled"), detail: t("key.cancelledDetail"), code: undefined };
}
