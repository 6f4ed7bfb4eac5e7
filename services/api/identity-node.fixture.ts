/** The service in this process over TLS, no other one running, for tests of log-in. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Agent, fetch as undiciFetch } from "undici";
import { hashPassword } from "#lib/password/password.ts";
import type { LogFields } from "#lib/service/log.ts";
import { type ApiOptions, startApi } from "./api.ts";
import type { Session, SessionInfo } from "./schema.ts";

export interface FixtureNode {
  /** https://localhost:PORT, which is set as the console's address. */
  readonly url: string;
  /** Every line of the log, as text. */
  readonly log: string[];
  readonly password: string;
  /** As admin, or with another token; throws what isn't 2xx, as status and title. */
  call<Answer>(method: string, path: string, body?: unknown, token?: string): Promise<Answer>;
  /** Of a session's token or cookie; undefined if it is none. */
  whoIs(token: string | undefined): Promise<SessionInfo | undefined>;
  stop(): Promise<void>;
}

export async function startFixtureNode(
  state: string,
  more: Partial<ApiOptions> = {},
): Promise<FixtureNode> {
  mkdirSync(state, { recursive: true });
  const password = "correct horse";
  const adminHashFile = join(state, "admin.hash");
  writeFileSync(adminHashFile, `${hashPassword(password)}\n`);
  const log: string[] = [];
  const write = (message: string, fields?: LogFields) => {
    log.push(`${message} ${JSON.stringify(fields ?? {})}`);
  };
  const api = await startApi({
    ...{ state, run: join(state, "run"), http: null, ui: null, portalAddress: "auto" },
    https: { host: "127.0.0.1", port: 0 },
    peers: {
      store: join(state, "no-store"),
      iscsi: join(state, "no-target"),
      netboot: join(state, "no-netboot"),
      network: join(state, "no-network"),
      updater: join(state, "no-updater"),
    },
    clusterStore: `sqlite:${join(state, "cluster.sqlite")}`,
    spool: join(state, "spool"),
    adminHashFile,
    log: { error: write, warn: write, info: write, debug: write },
    ...more,
  });
  const { port } = new URL(api.addresses.https ?? api.addresses.http);
  const url = `${api.addresses.https === undefined ? "http" : "https"}://localhost:${port}`;
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  let admin = "";
  const call: FixtureNode["call"] = async (method, path, body, token = admin) => {
    const answer = await undiciFetch(`${url}/api/v1${path}`, {
      method,
      dispatcher,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status} ${text}`);
    return (text === "" ? undefined : JSON.parse(text)) as never;
  };
  admin = (await call<Session>("POST", "/session", { user: "admin", password })).token;
  await call("PUT", "/console-address", { url });
  return {
    ...{ url, log, password, call },
    whoIs: async (token) => {
      if (token === undefined) return undefined;
      return await call<SessionInfo>("GET", "/session", undefined, token).catch(() => undefined);
    },
    stop: async () => {
      await dispatcher.close();
      await api.close();
    },
  };
}
