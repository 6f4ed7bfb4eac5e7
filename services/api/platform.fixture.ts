/** The service in this process, on loopback, with SQLite and no other service running: for tests. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hashPassword } from "#lib/password/password.ts";
import type { Log } from "#lib/service/log.ts";
import { type Api, startApi } from "./api.ts";
import type { Clock } from "./clock.ts";
import type { DeliveryPace } from "./head-delivery.ts";
import type { Session } from "./schema.ts";

export const password = "correct horse";
const passwordHash = hashPassword(password);

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into documents of every kind.
  readonly body: any;
}

export class TestNode {
  readonly state = mkdtempSync(join(tmpdir(), "keelson-platform-"));
  /** Every line that was logged. */
  readonly lines: string[] = [];
  readonly clock: Clock | undefined;
  /** Run directory of a firmware-updater; none answers there unless a test starts one. */
  readonly updaterRun = join(this.state, "updater");
  /** Run directory of a chunk-store, likewise. */
  readonly storeRun = join(this.state, "store", "run");
  readonly headPace: DeliveryPace | undefined;
  #api: Api | undefined;
  #token = "";

  constructor(clock?: Clock, headPace?: DeliveryPace) {
    this.clock = clock;
    this.headPace = headPace;
  }

  async start(secretKey?: string): Promise<void> {
    mkdirSync(join(this.state, "ui"), { recursive: true });
    const hashFile = join(this.state, "admin.hash");
    writeFileSync(hashFile, `${passwordHash}\n`);
    const write =
      (level: string) =>
      (message: string, fields: object = {}) => {
        this.lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
      };
    const log: Log = {
      error: write("error"),
      warn: write("warn"),
      info: write("info"),
      debug: write("debug"),
    };
    this.#api = await startApi({
      state: join(this.state, "api"),
      run: join(this.state, "run"),
      http: { host: "127.0.0.1", port: 0 },
      https: { host: "127.0.0.1", port: 0 },
      peers: {
        store: this.storeRun,
        iscsi: join(this.state, "no-target"),
        netboot: join(this.state, "no-netboot"),
        network: join(this.state, "no-network"),
        updater: this.updaterRun,
      },
      clusterStore: `sqlite:${join(this.state, "cluster.sqlite")}`,
      ui: join(this.state, "ui"),
      spool: join(this.state, "spool"),
      portalAddress: "auto",
      adminHashFile: hashFile,
      secretKey,
      log,
      headPace: this.headPace,
      ...(this.clock === undefined ? {} : { clock: this.clock }),
    });
    this.#token = await this.logIn();
  }

  get http(): string {
    return this.#api!.addresses.http;
  }

  get https(): string {
    return this.#api!.addresses.https;
  }

  get token(): string {
    return this.#token;
  }

  async logIn(user = "admin", secret = password): Promise<string> {
    const { body } = await this.call("POST", "/session", { user, password: secret });
    return (body as Session).token;
  }

  async call(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const answer = await fetch(`${this.http}/api/v1${path}`, {
      method,
      headers: {
        ...(this.#token === "" ? {} : { authorization: `Bearer ${this.#token}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return {
      status: answer.status,
      headers: answer.headers,
      body: text === "" ? null : JSON.parse(text),
    };
  }

  async stop(): Promise<void> {
    await this.#api?.close();
    this.#api = undefined;
    this.#token = "";
  }

  async restart(secretKey?: string): Promise<void> {
    await this.stop();
    await this.start(secretKey);
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.state, { recursive: true });
  }

  /** Files under the state directory that hold `text`, and log lines that do. */
  holding(text: string): string[] {
    const files = readdirSync(this.state, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((path) => readFileSync(path).includes(text));
    return [...files, ...this.lines.filter((line) => line.includes(text))];
  }
}
