/** What the health gate sees of a running node, each from where it can't be prettified. */
import { execFile } from "node:child_process";
import { request } from "node:https";
import { networkInterfaces } from "node:os";
import { promisify } from "node:util";
import { explainError } from "#lib/model/errors.ts";
import { unixFetch } from "#lib/rpc/client.ts";
import type { StoreInfo } from "#services/chunk-store/schema.ts";
import type { Health, HealthProbes, UnitHealth } from "./gate.ts";
import type { Baseline } from "./state.ts";

const run = promisify(execFile);
const timeoutMs = 20_000;

/** Services whose state is asked for; those that don't run on this node are not missed. */
const watchedUnits = ["cluster-store", "chunk-store", "iscsi-target", "api", "netboot"];

export interface ProbeOptions {
  readonly storeSocket: string;
  readonly httpsPort: number;
  /** The store's device, of which a block is read. */
  readBlock(): void;
}

export class RealProbes implements HealthProbes {
  readonly #options: ProbeOptions;

  constructor(options: ProbeOptions) {
    this.#options = options;
  }

  async observe(): Promise<Health> {
    const [units, api, store] = await Promise.all([
      unitStates().catch(() => []),
      apiProblem(this.#options.httpsPort),
      this.storeProblem(),
    ]);
    return { units, api, store, links: linksNow() };
  }

  async baseline(): Promise<Baseline> {
    const units = (await unitStates()).filter(({ active }) => active === "active");
    return { units: units.map(({ name }) => name), links: linksNow() };
  }

  /** The store says it is open, and its device gives a block. */
  async storeProblem(): Promise<string | null> {
    try {
      const answer = await unixFetch(this.#options.storeSocket, timeoutMs)("http://unix/v1/store", {
        signal: AbortSignal.timeout(timeoutMs),
      });
      if (!answer.ok) return `its service answers with status ${answer.status}`;
      const info = (await answer.json()) as StoreInfo;
      const problem = storeInfoProblem(info);
      if (problem !== null) return problem;
      this.#options.readBlock();
      return null;
    } catch (error) {
      return explainError(error);
    }
  }
}

function storeInfoProblem(info: StoreInfo): string | null {
  return info.state === "mounted" ? null : `it has failed: ${info.reason ?? "no reason given"}`;
}

async function unitStates(): Promise<UnitHealth[]> {
  const { stdout } = await run(
    "systemctl",
    [
      "show",
      "--property=Id,LoadState,ActiveState,SubState,NRestarts",
      ...watchedUnits.map((name) => `keelson-${name}.service`),
    ],
    { timeout: timeoutMs, env: { LC_ALL: "C", PATH: "/usr/bin:/bin" } },
  );
  return parseUnits(stdout);
}

/** `systemctl show` of several units: blocks of NAME=VALUE lines. */
export function parseUnits(text: string): UnitHealth[] {
  return text
    .trim()
    .split(/\n\n+/)
    .map((block) => new Map(block.split("\n").map((line) => splitOnce(line))))
    .filter((block) => block.get("LoadState") === "loaded")
    .map((block) => ({
      name: (block.get("Id") ?? "").replace(/^keelson-|\.service$/g, ""),
      active: block.get("ActiveState") ?? "unknown",
      sub: block.get("SubState") ?? "unknown",
      restarts: Number(block.get("NRestarts") ?? 0),
    }));
}

function splitOnce(line: string): [string, string] {
  const at = line.indexOf("=");
  return [line.slice(0, at), line.slice(at + 1)];
}

/** Links with a carrier and an address that is more than link-local. */
export function linksNow(interfaces = networkInterfaces()): Baseline["links"] {
  return Object.entries(interfaces).flatMap(([name, addresses = []]) => {
    const outside = addresses.filter(({ internal }) => !internal);
    if (outside.length === 0) return [];
    const ipv4 = outside.some(
      ({ family, address }) => family === "IPv4" && !address.startsWith("169.254."),
    );
    return [{ name, mac: outside[0].mac, ipv4 }];
  });
}

/** This node's own certificate is not checked: who answers on the loopback is this node. */
function apiProblem(port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const call = request(
      {
        host: "127.0.0.1",
        port,
        path: "/api/v1/ping",
        rejectUnauthorized: false,
        timeout: timeoutMs,
        agent: false,
      },
      (answer) => {
        answer.resume();
        answer.once("end", () =>
          resolve(answer.statusCode === 200 ? null : `it answers with status ${answer.statusCode}`),
        );
      },
    );
    call.once("timeout", () => call.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
    call.once("error", (error) => resolve(`no answer over TLS (${error.message})`));
    call.end();
  });
}
