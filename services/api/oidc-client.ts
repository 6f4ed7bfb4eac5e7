/**
 * OpenID Connect, the code flow with PKCE, as openid-client does it. What this adds: time and size
 * limits on every answer, a provider's own CA, the ID token's signature always checked (the library
 * trusts TLS alone unless told otherwise), metadata kept and fetched anew, errors that say which
 * side to look at. Nothing here knows users.
 */
import { rootCertificates } from "node:tls";
import type * as openid from "openid-client";
import type * as undici from "undici";
import type { Clock } from "./clock.ts";
import { type IdentityProviderRecord, pemCertificates } from "./identity-schema.ts";
import type { LogInFailureCode } from "./oidc-failures.ts";
import { claimAt, type ExternalIdentity } from "./oidc-mapping.ts";

/** Of one answer: metadata, keys, tokens. A directory's largest token is far below. */
const maxAnswerBytes = 1 << 20;
const answerSeconds = 8;
/** Clocks of node and provider may differ by this much. */
const clockToleranceSeconds = 60;
const metadataLifeMs = 3_600_000;
/** A provider that is down is asked again after this, however many people try. */
const retryAfterMs = 3_000;
/** Never HS256 or none: who knows our secret, or our provider's public key, must not sign. */
const signingAlgorithms = new Set([
  ...["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
  ...["ES256", "ES384", "ES512", "EdDSA", "Ed25519"],
]);

/** `detail` is for the log and the settings page: no code, token or secret is in it. */
export class OidcError extends Error {
  override readonly name = "OidcError";
  readonly why: LogInFailureCode;
  readonly detail: string;

  constructor(why: LogInFailureCode, detail: string, cause?: unknown) {
    super(`${why}: ${detail}`, cause === undefined ? undefined : { cause });
    this.why = why;
    this.detail = detail;
  }
}

/** Who somebody is there, and the token that said so: to log out there later. */
export interface Redeemed extends ExternalIdentity {
  readonly idToken: string | undefined;
}

/** What the browser must bring back, and what is sent with the code. */
export interface AuthorizationChecks {
  readonly state: string;
  readonly nonce: string;
  readonly codeVerifier: string;
}

interface Known {
  readonly settings: IdentityProviderRecord;
  readonly agent: undici.Agent;
  readonly configuration: Promise<openid.Configuration>;
  readonly fetchedMs: number;
  failedMs: number | undefined;
}

/** Loaded when first needed: most nodes have no provider, and these are a sixth of api's start. */
let client: typeof openid;
let http: typeof undici;

async function loadLibraries(): Promise<void> {
  [client, http] = await Promise.all([import("openid-client"), import("undici")]);
}

export class OidcClient {
  readonly #clock: Clock;
  #known: Known | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async newChecks(): Promise<AuthorizationChecks> {
    await loadLibraries();
    return {
      state: client.randomState(),
      nonce: client.randomNonce(),
      codeVerifier: client.randomPKCECodeVerifier(),
    };
  }

  /** Where to send the browser. OidcError, `provider-unreachable` or `-misconfigured`. */
  async authorizationUrl(
    settings: IdentityProviderRecord,
    redirectUri: string,
    checks: AuthorizationChecks,
  ): Promise<string> {
    const configuration = await this.#configuration(settings);
    const url = client.buildAuthorizationUrl(configuration, {
      redirect_uri: redirectUri,
      scope: settings.scopes.join(" "),
      state: checks.state,
      nonce: checks.nonce,
      code_challenge: await client.calculatePKCECodeChallenge(checks.codeVerifier),
      code_challenge_method: "S256",
    });
    return url.href;
  }

  /** Changes the code of `callback` into who that is; every check of RFC 6749, 9207 and OIDC Core. */
  async redeem(
    settings: IdentityProviderRecord,
    callback: URL,
    checks: AuthorizationChecks,
  ): Promise<Redeemed> {
    const configuration = await this.#configuration(settings);
    try {
      const tokens = await client.authorizationCodeGrant(configuration, callback, {
        expectedState: checks.state,
        expectedNonce: checks.nonce,
        pkceCodeVerifier: checks.codeVerifier,
        idTokenExpected: true,
      });
      const idToken = tokens.claims()!;
      checkIssuedAt(idToken.iat, this.#clock);
      let claims: Record<string, unknown> = { ...idToken };
      if (this.#wantsMore(settings, configuration, claims)) {
        const more = await client.fetchUserInfo(configuration, tokens.access_token, idToken.sub);
        // What was signed counts more than what was not.
        claims = { ...more, ...claims };
      }
      return { issuer: idToken.iss, subject: idToken.sub, claims, idToken: tokens.id_token };
    } catch (error) {
      const explained = explain(error);
      // New keys are fetched at once at the next try: the provider may just have changed them.
      if (explained.why === "answer-untrusted") this.forget();
      throw explained;
    }
  }

  /**
   * Where to send the browser to log out there (OpenID Connect RP-Initiated Logout 1.0, section 2);
   * null where the provider has no such page. Without a hint it asks who that is.
   */
  async endSessionUrl(
    settings: IdentityProviderRecord,
    redirectUri: string,
    idTokenHint: string | undefined,
  ): Promise<string | null> {
    const endpoint = endSessionEndpoint(await this.metadata(settings));
    if (endpoint === null) return null;
    const url = new URL(endpoint);
    url.searchParams.set("client_id", settings.clientId);
    url.searchParams.set("post_logout_redirect_uri", redirectUri);
    if (idTokenHint !== undefined) url.searchParams.set("id_token_hint", idTokenHint);
    return url.href;
  }

  /** The provider's metadata, asked for now. */
  async probe(settings: IdentityProviderRecord): Promise<openid.ServerMetadata> {
    this.forget();
    return await this.metadata(settings);
  }

  /** The provider's metadata, as it is known. */
  async metadata(settings: IdentityProviderRecord): Promise<openid.ServerMetadata> {
    return (await this.#configuration(settings)).serverMetadata();
  }

  /** Tries the client's id and secret with a code that can't be good; true if only that was wrong. */
  async probeSecret(settings: IdentityProviderRecord, redirectUri: string): Promise<void> {
    const configuration = await this.#configuration(settings);
    const callback = new URL(redirectUri);
    callback.searchParams.set("code", "test-of-the-client-secret");
    // RFC 9207: a provider that says it names itself in its answers is held to it.
    callback.searchParams.set("iss", configuration.serverMetadata().issuer);
    try {
      await client.authorizationCodeGrant(configuration, callback, {
        pkceCodeVerifier: client.randomPKCECodeVerifier(),
      });
    } catch (error) {
      const invalidCode =
        error instanceof client.ResponseBodyError &&
        ["invalid_grant", "invalid_request"].includes(error.error);
      if (!invalidCode) throw explain(error);
    }
  }

  /** The keys that tokens are signed by: how many there are. */
  async probeKeys(settings: IdentityProviderRecord): Promise<number> {
    const configuration = await this.#configuration(settings);
    const address = configuration.serverMetadata().jwks_uri;
    if (address === undefined) {
      throw new OidcError("provider-misconfigured", "its metadata names no keys (jwks_uri)");
    }
    try {
      const answer = await limitedFetch(this.#known!.agent)(address, {
        signal: AbortSignal.timeout(answerSeconds * 1000),
        redirect: "manual",
      });
      const body = (await answer.json()) as { keys?: unknown } | null;
      if (Array.isArray(body?.keys) && body.keys.length > 0) return body.keys.length;
      throw new OidcError("provider-misconfigured", `${address} has no keys`);
    } catch (error) {
      throw explain(error);
    }
  }

  /** The next use asks the provider anew. */
  forget(): void {
    const known = this.#known;
    this.#known = undefined;
    if (known !== undefined) known.agent.close().catch(() => {});
  }

  /** One request at a time, whoever waits for it; its failure counts for a few seconds. */
  async #configuration(settings: IdentityProviderRecord): Promise<openid.Configuration> {
    await loadLibraries();
    const nowMs = this.#clock.bootMs();
    const known = this.#known;
    if (known !== undefined && JSON.stringify(known.settings) === JSON.stringify(settings)) {
      const fresh =
        known.failedMs === undefined
          ? nowMs - known.fetchedMs < metadataLifeMs
          : nowMs - known.failedMs < retryAfterMs;
      if (fresh) return known.configuration;
    }
    this.forget();
    const agent = agentFor(settings);
    const next: Known = {
      settings,
      agent,
      configuration: discover(settings, agent),
      fetchedMs: nowMs,
      failedMs: undefined,
    };
    next.configuration.catch(() => {
      next.failedMs = this.#clock.bootMs();
    });
    this.#known = next;
    return next.configuration;
  }

  /** OIDC Core 5.4: with a code, a provider may leave profile and groups to the userinfo endpoint. */
  #wantsMore(
    settings: IdentityProviderRecord,
    configuration: openid.Configuration,
    claims: Record<string, unknown>,
  ): boolean {
    if (configuration.serverMetadata().userinfo_endpoint === undefined) return false;
    const wanted = [settings.userClaim, settings.groupsClaim];
    if (settings.allowedDomains.length > 0) wanted.push("email", "email_verified");
    return wanted.some((claim) => claimAt(claims, claim) === undefined);
  }
}

function agentFor({ caCertificate }: IdentityProviderRecord): undici.Agent {
  return new http.Agent({
    connect: {
      timeout: 5_000,
      ...(caCertificate === null
        ? {}
        : { ca: [...rootCertificates, ...pemCertificates(caCertificate)] }),
    },
    headersTimeout: answerSeconds * 1000,
    bodyTimeout: answerSeconds * 1000,
    maxResponseSize: maxAnswerBytes,
    keepAliveTimeout: 5_000,
  });
}

function limitedFetch(agent: undici.Agent): typeof fetch {
  return ((url: string, options: object) =>
    http.fetch(url, { ...options, dispatcher: agent } as never)) as unknown as typeof fetch;
}

async function discover(
  settings: IdentityProviderRecord,
  agent: undici.Agent,
): Promise<openid.Configuration> {
  try {
    const configuration = await client.discovery(
      new URL(settings.issuer),
      settings.clientId,
      { [client.clockTolerance]: clockToleranceSeconds },
      authentication(settings),
      {
        [client.customFetch]: limitedFetch(agent) as unknown as openid.CustomFetch,
        timeout: answerSeconds,
        execute: [client.enableNonRepudiationChecks],
      },
    );
    checkMetadata(configuration.serverMetadata(), settings);
    return configuration;
  } catch (error) {
    throw explain(error);
  }
}

/** Basic, which RFC 6749 makes every provider take; it is tried by “Test”. */
function authentication(settings: IdentityProviderRecord): openid.ClientAuth {
  return (server, configured, body, headers) => {
    const methods = server.token_endpoint_auth_methods_supported;
    const basic = methods === undefined || methods.includes("client_secret_basic");
    const method = basic ? client.ClientSecretBasic : client.ClientSecretPost;
    method(settings.clientSecret)(server, configured, body, headers);
  };
}

function checkMetadata(metadata: openid.ServerMetadata, settings: IdentityProviderRecord): void {
  // Strictly: the library lets a few well-known providers name another issuer than was asked.
  if (new URL(metadata.issuer).href !== new URL(settings.issuer).href) {
    const detail = `it calls itself ${shown(metadata.issuer)}, not ${shown(settings.issuer)}`;
    throw new OidcError("provider-misconfigured", detail);
  }
  for (const name of ["authorization_endpoint", "token_endpoint", "jwks_uri"] as const) {
    const address = metadata[name];
    if (address === undefined || !/^https:\/\//i.test(address) || !URL.canParse(address)) {
      throw new OidcError("provider-misconfigured", `its metadata has no https ${name}`);
    }
  }
  const { id_token_signing_alg_values_supported: offered } = metadata;
  if (Array.isArray(offered) && !offered.some((name) => signingAlgorithms.has(name))) {
    const detail = "it signs by none of the algorithms that can be checked with a public key";
    throw new OidcError("provider-misconfigured", detail);
  }
}

/** Only an https one: the browser goes there. */
export function endSessionEndpoint(metadata: openid.ServerMetadata): string | null {
  const { end_session_endpoint: address } = metadata;
  if (typeof address !== "string" || !/^https:\/\//i.test(address)) return null;
  return URL.canParse(address) ? address : null;
}

/** A token from the future was made by another clock: its end means nothing then. */
function checkIssuedAt(iat: number, clock: Clock): void {
  const aheadSeconds = iat - Date.parse(clock.now()) / 1000;
  if (aheadSeconds > clockToleranceSeconds) {
    const detail = `the token is from ${Math.round(aheadSeconds)} s in the future`;
    throw new OidcError("answer-expired", detail);
  }
}

/** Of texts that somebody else wrote: one line, printable, short. */
export function shown(text: unknown): string {
  return String(text)
    .replaceAll(/[^\x20-\x7e]/g, "?")
    .slice(0, 120);
}

interface Caused {
  readonly code?: unknown;
  readonly name?: unknown;
  readonly message?: unknown;
  readonly cause?: unknown;
}

/** The chain of causes, outermost first. */
function causes(error: unknown): Caused[] {
  const chain: Caused[] = [];
  let next: unknown = error;
  while (typeof next === "object" && next !== null && chain.length < 6) {
    chain.push(next as Caused);
    next = (next as Caused).cause;
  }
  return chain;
}

const untrustedCodes = new Set([
  "OAUTH_JWT_CLAIM_COMPARISON_FAILED",
  "OAUTH_KEY_SELECTION_FAILED",
  "OAUTH_UNSUPPORTED_OPERATION",
  "OAUTH_INVALID_RESPONSE",
  "OAUTH_PARSE_ERROR",
  "OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED",
]);

/** Which of our codes an error of the library or the network is, with words for the log. */
export function explain(error: unknown): OidcError {
  if (error instanceof OidcError) return error;
  return (client === undefined ? undefined : ofLibrary(error)) ?? ofNetwork(error);
}

function ofLibrary(error: unknown): OidcError | undefined {
  if (error instanceof client.AuthorizationResponseError) {
    return new OidcError("provider-refused", `it says ${shown(error.error)}`, error);
  }
  if (error instanceof client.ResponseBodyError) {
    if (error.error === "invalid_grant") {
      return new OidcError("attempt-unknown", "it doesn't take the code (invalid_grant)", error);
    }
    const detail = `its token endpoint says ${shown(error.error)}`;
    return new OidcError("provider-misconfigured", detail, error);
  }
  if (error instanceof client.WWWAuthenticateChallengeError) {
    const said = error.cause.find(({ parameters }) => parameters.error !== undefined)?.parameters;
    const detail = `it refuses the client's id or secret (${shown(said?.error ?? error.status)})`;
    return new OidcError("provider-misconfigured", detail, error);
  }
  return undefined;
}

function ofNetwork(error: unknown): OidcError {
  const chain = causes(error);
  const code = (wanted: (code: string) => boolean) =>
    chain.find((item) => typeof item.code === "string" && wanted(item.code));
  if (code((name) => name === "UND_ERR_RES_EXCEEDED_MAX_SIZE") !== undefined) {
    return new OidcError("provider-misconfigured", "its answer is larger than 1 MiB", error);
  }
  if (isTimeout(chain)) {
    const detail = `no full answer within ${answerSeconds} s`;
    return new OidcError("provider-unreachable", detail, error);
  }
  if (code((name) => name === "OAUTH_JWT_TIMESTAMP_CHECK_FAILED") !== undefined) {
    return new OidcError("answer-expired", innermostReason(chain), error);
  }
  const metadata = code((name) =>
    /^OAUTH_(RESPONSE_IS_NOT|HTTP_REQUEST|REQUEST_PROTOCOL)/.test(name),
  );
  if (metadata !== undefined) {
    return new OidcError("provider-misconfigured", answerKind(chain), error);
  }
  if (code((name) => untrustedCodes.has(name)) !== undefined) {
    return new OidcError("answer-untrusted", innermostReason(chain), error);
  }
  const network = code((name) =>
    /^(E[A-Z_]+|UND_ERR|CERT|DEPTH|SELF|UNABLE|ERR_(TLS|SSL))/.test(name),
  );
  if (network !== undefined || chain.some(({ message }) => message === "fetch failed")) {
    const reason = typeof network?.code === "string" ? network.code : "no connection";
    return new OidcError("provider-unreachable", networkReason(reason), error);
  }
  return new OidcError("answer-untrusted", innermostReason(chain), error);
}

function isTimeout(chain: readonly Caused[]): boolean {
  return chain.some(
    ({ name, code }) =>
      name === "TimeoutError" ||
      code === "OAUTH_TIMEOUT" ||
      (typeof code === "string" && /^(UND_ERR_\w*TIMEOUT|ETIMEDOUT)$/.test(code)),
  );
}

/** The library's own words, which name the claim or key but not its value. */
function innermostReason(chain: readonly Caused[]): string {
  const said = chain.filter((item) => item instanceof Error).at(-1)?.message;
  return shown(said ?? "the answer is not what OpenID Connect asks for");
}

function answerKind(chain: readonly Caused[]): string {
  const answer = chain.find((item) => "status" in item) as { status?: unknown } | undefined;
  const base = innermostReason(chain);
  return answer === undefined ? base : `${base} (HTTP ${shown(answer.status)})`;
}

/** What a person can do something about, for the codes that are met in practice. */
function networkReason(code: string): string {
  if (/^(SELF_SIGNED|DEPTH_ZERO|UNABLE_TO|CERT_UNTRUSTED)/.test(code)) {
    return `its certificate is not signed by an authority known here (${code}): give the CA certificate`;
  }
  if (code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID") {
    return `its certificate is not valid at this node's time (${code})`;
  }
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    return "its certificate is for another name (ERR_TLS_CERT_ALTNAME_INVALID)";
  }
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return `its name is not found in DNS (${code})`;
  if (code === "ECONNREFUSED") return "nothing listens at its address (ECONNREFUSED)";
  return `no connection (${shown(code)})`;
}
