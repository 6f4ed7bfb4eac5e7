/** A whole Keelson node in one namespace, and its API as a user calls it. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { hashPassword } from "#lib/password/password.ts";
import type { HttpAnswer, HttpCall } from "./http-call.ts";
import type { Lab, Namespace, Service } from "./lab.ts";

export async function httpCall(host: Namespace, call: HttpCall): Promise<HttpAnswer> {
  const { stdout } = await host.run(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", join(import.meta.dirname, "http-call.ts")],
    { input: JSON.stringify(call) },
  );
  return JSON.parse(stdout) as HttpAnswer;
}

export class ApiSession {
  #host: Namespace;
  #url: string;
  #token = "";

  constructor(host: Namespace, url: string) {
    this.#host = host;
    this.#url = url;
  }

  async logIn(password: string): Promise<void> {
    const session = await this.call<{ token: string }>("POST", "/session", {
      user: "admin",
      password,
    });
    this.#token = session.token;
  }

  /** Throws on any status but 2xx, with the problem's text. */
  async call<Answer>(method: string, path: string, body?: unknown, file?: string): Promise<Answer> {
    const answer = await httpCall(this.#host, {
      method,
      url: `${this.#url}/api/v1${path}`,
      headers: {
        ...(this.#token === "" ? {} : { authorization: `Bearer ${this.#token}` }),
        "content-type": file === undefined ? "application/json" : "application/octet-stream",
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(file === undefined ? {} : { file }),
    });
    if (answer.status < 200 || answer.status > 299) {
      throw new Error(`${method} ${path}: ${answer.status} ${answer.text}`);
    }
    return (answer.text === "" ? undefined : JSON.parse(answer.text)) as Answer;
  }
}

export interface KeelsonNode {
  readonly api: ApiSession;
  readonly services: Record<"chunk-store" | "iscsi-target" | "netboot" | "api", Service>;
}

/** Starts the four services in `host`, as their units do, and logs in. */
export async function keelsonNode(lab: Lab, host: Namespace): Promise<KeelsonNode> {
  const run = (name: string) => lab.directory(`run-${name}`);
  const runs = {
    store: run("chunk-store"),
    iscsi: run("iscsi-target"),
    netboot: run("netboot"),
    api: run("api"),
  };
  const store = await lab.service(
    host,
    "chunk-store",
    ["--device", join(lab.directory("store"), "store.img"), "--create", "4G"],
    { run: runs.store },
  );
  const target = await lab.service(host, "iscsi-target", ["--store-run", runs.store], {
    run: runs.iscsi,
  });
  const netboot = await lab.service(host, "netboot", ["--api-run", runs.api], {
    run: runs.netboot,
  });
  const password = "correct horse battery";
  const hashFile = join(lab.directory("secrets"), "hash");
  writeFileSync(hashFile, `${hashPassword(password)}\n`, { mode: 0o600 });
  const api = await lab.service(
    host,
    "api",
    [
      ...["--http", "127.0.0.1:8080", "--admin-password-hash-file", hashFile],
      ...["--store-run", runs.store, "--iscsi-run", runs.iscsi, "--netboot-run", runs.netboot],
      ...["--cluster-store", `sqlite:${join(lab.directory("cluster"), "cluster.sqlite")}`],
    ],
    { run: runs.api, socket: "internal.sock" },
  );
  const session = new ApiSession(host, "http://127.0.0.1:8080");
  await session.logIn(password);
  return {
    api: session,
    services: { "chunk-store": store, "iscsi-target": target, netboot, api },
  };
}
