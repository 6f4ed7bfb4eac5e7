/**
 * An identity provider that lies as it is told to. Without a lie it is a good one: the first test
 * of each suite logs in by it, so that a refusal afterwards is the lie's doing.
 */
import { randomUUID } from "node:crypto";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import {
  type CryptoKey,
  exportJWK,
  exportSPKI,
  generateKeyPair,
  SignJWT,
  UnsecuredJWT,
} from "jose";
import { type FixtureServer, serveTls } from "./oidc-provider.fixture.ts";

type Claims = Record<string, unknown>;
type Place = "metadata" | "keys" | "token" | "userinfo";

export interface Lies {
  /** Changes the ID token's claims; undefined values are left out. */
  readonly claims?: (claims: Claims) => Claims;
  readonly signature?: "unknown-key" | "none" | "client-secret" | "public-key" | "broken";
  /** Changes the metadata. */
  readonly metadata?: (metadata: Claims) => Claims;
  /** Changes the parameters that the browser brings back. */
  readonly callback?: (parameters: URLSearchParams) => void;
  /** The token endpoint's whole answer. */
  readonly tokenAnswer?: (answer: Claims) => unknown;
  readonly userinfo?: Claims;
  /** Answers with endless bytes there. */
  readonly huge?: Place;
  /** Answers a byte a second there, or not at all. */
  readonly slow?: { readonly place: Place; readonly how: "silent" | "trickle" };
  /** Answers with this status there. */
  readonly status?: { readonly place: Place; readonly code: number; readonly text?: string };
}

export interface LyingProvider extends FixtureServer {
  lies: Lies;
  /** Who logs in next. */
  subject: Claims;
  readonly clientId: string;
  readonly clientSecret: string;
  /** How often each address was asked for. */
  readonly asked: Map<string, number>;
  /** New signing key; the old one is no longer published. */
  rotate(): Promise<void>;
}

interface Key {
  readonly kid: string;
  readonly publicKey: CryptoKey;
  readonly privateKey: CryptoKey;
}

async function newKey(): Promise<Key> {
  const pair = await generateKeyPair("RS256", { extractable: true });
  return { kid: randomUUID(), ...pair };
}

export async function startLyingProvider(): Promise<LyingProvider> {
  let key = await newKey();
  const stranger = { ...(await newKey()), kid: key.kid };
  const nonces = new Map<string, string>();
  const [clientId, clientSecret] = ["keelson", "the-client-secret-0123456789abcdef"];
  const asked = new Map<string, number>();
  let provider: LyingProvider;

  const sign = async (claims: Claims): Promise<string> => {
    const header = { alg: "RS256", kid: key.kid };
    switch (provider.lies.signature) {
      case "none":
        return new UnsecuredJWT(claims).encode();
      case "client-secret":
        return await new SignJWT(claims)
          .setProtectedHeader({ alg: "HS256" })
          .sign(Buffer.from(clientSecret));
      case "public-key": {
        // The old confusion: the public key's text as the secret of an HMAC.
        const secret = Buffer.from(await exportSPKI(key.publicKey));
        return await new SignJWT(claims)
          .setProtectedHeader({ alg: "HS256", kid: key.kid })
          .sign(secret);
      }
      case "unknown-key":
        return await new SignJWT(claims).setProtectedHeader(header).sign(stranger.privateKey);
      case "broken": {
        const token = await new SignJWT(claims).setProtectedHeader(header).sign(key.privateKey);
        const [head, , signature] = token.split(".");
        const other = Buffer.from(JSON.stringify({ ...claims, groups: ["it"] }));
        return `${head}.${other.toString("base64url")}.${signature}`;
      }
      default:
        return await new SignJWT(claims).setProtectedHeader(header).sign(key.privateKey);
    }
  };

  const answers: Record<Place, (origin: string, code: string) => Promise<unknown>> = {
    metadata: async (origin) => {
      const metadata: Claims = {
        issuer: origin,
        authorization_endpoint: `${origin}/authorize`,
        token_endpoint: `${origin}/token`,
        userinfo_endpoint: `${origin}/userinfo`,
        jwks_uri: `${origin}/keys`,
        response_types_supported: ["code"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["RS256", "HS256", "none"],
        code_challenge_methods_supported: ["S256"],
      };
      return provider.lies.metadata?.(metadata) ?? metadata;
    },
    keys: async () => ({
      keys: [{ ...(await exportJWK(key.publicKey)), kid: key.kid, use: "sig", alg: "RS256" }],
    }),
    token: async (origin, code) => {
      const now = Math.floor(Date.now() / 1000);
      const good: Claims = {
        ...{ iss: origin, aud: clientId, iat: now, exp: now + 300, nonce: nonces.get(code) },
        ...provider.subject,
      };
      const claims = provider.lies.claims?.(good) ?? good;
      const answer = {
        access_token: "access-token-that-is-secret",
        token_type: "Bearer",
        id_token: await sign(JSON.parse(JSON.stringify(claims)) as Claims),
      };
      return provider.lies.tokenAnswer?.(answer) ?? answer;
    },
    userinfo: async () => provider.lies.userinfo ?? { ...provider.subject },
  };

  const reply = async (
    place: Place,
    origin: string,
    code: string,
    response: ServerResponse,
  ): Promise<void> => {
    const { huge, slow, status } = provider.lies;
    if (status?.place === place) {
      response.writeHead(status.code, { "content-type": "text/html" }).end(status.text ?? "");
      return;
    }
    if (slow?.place === place && slow.how === "silent") return;
    response.writeHead(200, { "content-type": "application/json" });
    const text = JSON.stringify(await answers[place](origin, code));
    if (huge === place) {
      const chunk = `"${"x".repeat(65_536)}",`;
      response.write("[");
      const more = () => {
        while (!response.destroyed && response.write(chunk));
        if (!response.destroyed) response.once("drain", more);
      };
      more();
      return;
    }
    if (slow?.place === place) {
      let at = 0;
      const timer = setInterval(() => {
        if (response.destroyed || at >= text.length) clearInterval(timer);
        else response.write(text[at++]);
      }, 1000);
      response.once("close", () => clearInterval(timer));
      return;
    }
    response.end(text);
  };

  const listener =
    (origin: string): RequestListener =>
    (request: IncomingMessage, response: ServerResponse) => {
      const url = new URL(request.url ?? "/", origin);
      asked.set(url.pathname, (asked.get(url.pathname) ?? 0) + 1);
      let body = "";
      request.on("data", (text) => {
        body += text;
      });
      request.on("end", () => {
        const code = new URLSearchParams(body).get("code") ?? "";
        if (url.pathname === "/.well-known/openid-configuration") {
          void reply("metadata", origin, code, response);
        } else if (url.pathname === "/keys") void reply("keys", origin, code, response);
        else if (url.pathname === "/token") void reply("token", origin, code, response);
        else if (url.pathname === "/userinfo") void reply("userinfo", origin, code, response);
        else if (url.pathname === "/authorize") {
          const given = randomUUID();
          nonces.set(given, url.searchParams.get("nonce") ?? "");
          const back = new URL(url.searchParams.get("redirect_uri")!);
          back.searchParams.set("code", given);
          back.searchParams.set("state", url.searchParams.get("state") ?? "");
          provider.lies.callback?.(back.searchParams);
          response.writeHead(302, { location: back.href }).end();
        } else response.writeHead(404).end();
      });
    };

  provider = {
    ...(await serveTls(listener)),
    lies: {},
    subject: { sub: "mallory", preferred_username: "mallory", groups: ["desk"] },
    ...{ clientId, clientSecret, asked },
    rotate: async () => {
      key = await newKey();
    },
  };
  return provider;
}
