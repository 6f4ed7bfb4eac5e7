/** What development commands ask of the HTTP API; nothing that a user could not ask. */

import { KeelsonError } from "#lib/model/errors.ts";
import { errorOf } from "#lib/rpc/problem.ts";
import type { Export, ExportCreated, Node, Session, Volume } from "#services/api/schema.ts";

/** A volume as `npm run dev -- --json` shows it. */
export interface DevTarget {
  readonly iqn: string;
  readonly lun: number;
  readonly volume: string;
  readonly sizeBytes: number;
}

const settleTimeoutMs = 30_000;
const settleDelayMs = 50;

export class DevApi {
  readonly url: string;
  readonly #token: string;

  private constructor(url: string, token: string) {
    this.url = url;
    this.#token = token;
  }

  static async logIn(url: string, password: string): Promise<DevApi> {
    const session = (await request(url, "", "POST", "/session", {
      user: "admin",
      password,
    })) as Session;
    return new DevApi(url, session.token);
  }

  async call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    return (await request(this.url, this.#token, method, path, body)) as Answer;
  }

  node(): Promise<Node> {
    return this.call("GET", "/node");
  }

  /** Makes the volume unless one of that name exists, exports it to loopback, waits until served. */
  async exportVolume(wanted: { name: string; sizeBytes: number }): Promise<DevTarget> {
    const volume = await this.#ensureVolume(wanted);
    const exports = await this.call<Export[]>("GET", "/exports");
    const served =
      exports.find((entry) => entry.name === wanted.name) ??
      (await this.call<ExportCreated>("POST", "/exports", {
        name: wanted.name,
        volumeId: volume.id,
        openToLoopback: true,
        chap: { kind: "none" },
      }));
    const ready = await this.#settle<Export>(`/exports/${served.id}`, (entry) => entry.message);
    return { iqn: ready.targetIqn, lun: 0, volume: volume.name, sizeBytes: volume.sizeBytes };
  }

  async #ensureVolume(wanted: { name: string; sizeBytes: number }): Promise<Volume> {
    const volumes = await this.call<Volume[]>("GET", "/volumes");
    const known = volumes.find((volume) => volume.name === wanted.name);
    if (known !== undefined && known.sizeBytes !== wanted.sizeBytes) {
      throw new KeelsonError(
        "CONFLICT",
        `Volume ${wanted.name} exists with ${known.sizeBytes} bytes, not ${wanted.sizeBytes}.`,
        { object: wanted.name, remedy: "Use another name or another --state directory." },
      );
    }
    const volume = known ?? (await this.call<Volume>("POST", "/volumes", wanted));
    return await this.#settle<Volume>(`/volumes/${volume.id}`, (entry) => entry.failure);
  }

  /** Waits until a resource is `ready`; what it says of itself is the error when it isn't in time. */
  async #settle<Resource extends { state: string }>(
    path: string,
    why: (resource: Resource) => string | null,
  ): Promise<Resource> {
    const deadline = Date.now() + settleTimeoutMs;
    for (;;) {
      const resource = await this.call<Resource>("GET", path);
      if (resource.state === "ready") return resource;
      if (resource.state === "failed" || Date.now() > deadline) {
        throw new KeelsonError(
          "UNAVAILABLE",
          `${path} is ${resource.state}: ${why(resource) ?? "no reason given"}.`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, settleDelayMs));
    }
  }
}

async function request(
  url: string,
  token: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const answer = await fetch(`${url}/api/v1${path}`, {
    method,
    headers: {
      ...(token === "" ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (answer.status === 204) return undefined;
  const document = await answer.json().catch(() => null);
  if (!answer.ok) throw errorOf(document, answer.status);
  return document;
}
