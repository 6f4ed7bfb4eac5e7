/** A certified provider (the package oidc-provider), over TLS on loopback, with its own log-in page. */
import type { RequestListener } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import type { FixtureBrowser, Page } from "./browser.fixture.ts";
import { passingCertificate } from "./certificate.ts";
import { pemCertificates } from "./identity-schema.ts";

export interface FixtureServer {
  readonly origin: string;
  /** PEM of who signed its certificate. */
  readonly caCertificate: string;
  close(): Promise<void>;
}

/** `port` 0: a free one. */
export async function serveTls(
  listener: (origin: string) => RequestListener,
  port = 0,
): Promise<FixtureServer> {
  const tls = await passingCertificate("provider", ["localhost"]);
  let handle: RequestListener = (_, response) => response.writeHead(503).end();
  const server: Server = createServer({ key: tls.key, cert: tls.chain }, (request, response) =>
    handle(request, response),
  );
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  const origin = `https://localhost:${(server.address() as AddressInfo).port}`;
  handle = listener(origin);
  return {
    origin,
    caCertificate: pemCertificates(tls.chain).at(-1)!,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

export interface Account {
  readonly groups?: unknown;
  readonly email?: string;
  readonly email_verified?: boolean;
  readonly name?: string;
  readonly preferred_username?: string;
}

export interface CertifiedProvider extends FixtureServer {
  readonly clientId: string;
  readonly clientSecret: string;
  /** By subject; whoever logs in there by any password is that account. */
  readonly accounts: Map<string, Account>;
}

interface ProviderClass {
  new (
    issuer: string,
    configuration: object,
  ): {
    callback(): RequestListener;
    on(event: string, listener: (...args: unknown[]) => void): void;
  };
}

export async function startCertifiedProvider(redirectUri: string): Promise<CertifiedProvider> {
  const accounts = new Map<string, Account>();
  const [clientId, clientSecret] = ["keelson", "a secret of the client: with %, & and +"];
  // It has no types of its own.
  const { default: Provider } = (await import("oidc-provider" as string)) as {
    default: ProviderClass;
  };
  const server = await serveTls((issuer) => {
    const provider = new Provider(issuer, {
      clients: [
        {
          ...{ client_id: clientId, client_secret: clientSecret, redirect_uris: [redirectUri] },
          post_logout_redirect_uris: [new URL("/", redirectUri).href],
        },
      ],
      claims: {
        openid: ["sub"],
        profile: ["name", "preferred_username", "groups"],
        email: ["email", "email_verified"],
      },
      pkce: { required: () => true },
      cookies: { keys: ["a key of the fixture"] },
      findAccount: (_: unknown, id: string) => {
        const account = accounts.get(id);
        if (account === undefined) return undefined;
        return { accountId: id, claims: () => ({ sub: id, ...account }) };
      },
    });
    return provider.callback();
  });
  return { ...server, clientId, clientSecret, accounts };
}

/** Goes through the provider's log-in and consent pages; returns where it leads in the end. */
export async function logInThere(
  browser: FixtureBrowser,
  start: string,
  subject: string,
): Promise<Page> {
  let page = await browser.visit(start);
  for (let steps = 0; steps < 4; steps++) {
    const action = /<form[^>]+action="([^"]+)"/.exec(page.text)?.[1];
    if (action === undefined) return page;
    const prompt = /name="prompt" value="(\w+)"/.exec(page.text)?.[1] ?? "";
    page = await browser.submit(new URL(action, page.url), {
      prompt,
      ...(prompt === "login" ? { login: subject, password: "any" } : {}),
    });
  }
  return page;
}

/** Answers yes on the provider's log-out page; returns where that leads. */
export async function logOutThere(browser: FixtureBrowser, start: string): Promise<Page> {
  const asked = await browser.visit(start);
  const action = /<form[^>]+action="([^"]+)"/.exec(asked.text)?.[1];
  const xsrf = /name="xsrf" value="(\w+)"/.exec(asked.text)?.[1];
  if (action === undefined || xsrf === undefined) return asked;
  return await browser.submit(new URL(action, asked.url), { xsrf, logout: "yes" });
}
