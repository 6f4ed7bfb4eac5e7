/** One node's real services for the console's tests: `npm run dev` in a directory of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { endProcess, killWithChildren } from "#qa/processes.ts";
import { bundleConsole } from "#tools/bundle.ts";

const root = resolve(import.meta.dirname, "../..");

export interface DevNode {
  readonly url: string;
  readonly bootUrl: string;
  /** `HOST:PORT` of the iSCSI target. */
  readonly iscsiPortal: string;
  readonly password: string;
  /** Of the supervisor; stopping it keeps what dies from being started again. */
  readonly supervisorPid: number;
  readonly pids: Readonly<Record<string, number>>;
  /** What a script would ask: the same routes as the console's, with a token. */
  call<Answer>(method: string, path: string, body?: unknown): Promise<Answer>;
  /** PUT of an image's bytes. */
  upload(imageId: string, content: Uint8Array<ArrayBuffer>): Promise<void>;
  stop(): Promise<void>;
  /** As when the power goes: nothing is told, nothing written any more. */
  kill(): Promise<void>;
}

export interface DevNodeOptions {
  /** Default 2G. */
  readonly storeSize?: string;
  /** Kept by the caller; default: one of its own, which is gone after `stop`. */
  readonly state?: string;
}

/** Builds the console and starts chunk-store, iscsi-target, netboot and api; rejects with their log. */
export async function startDevNode(options: DevNodeOptions = {}): Promise<DevNode> {
  await bundleConsole({ outDir: join(root, "build/ui") });
  const state = options.state ?? mkdtempSync(join(tmpdir(), "keelson-console-"));
  const { storeSize = "2G" } = options;
  const child = spawn(
    process.execPath,
    [
      ...["--disable-warning=ExperimentalWarning", join(root, "tools/dev.ts"), "--json"],
      ...["--state", state, "--store-size", storeSize],
    ],
    { cwd: root, stdio: ["ignore", "pipe", "pipe"] },
  );
  const stop = async () => {
    await endProcess(child);
    if (options.state === undefined) rmSync(state, { recursive: true, force: true });
  };
  try {
    const ready = await readyLine(child);
    const password = readFileSync(join(state, "admin-password"), "utf8").trim();
    const { call, upload } = await caller(ready.http, password);
    return {
      url: ready.http,
      bootUrl: ready.boot,
      iscsiPortal: ready.iscsi.portal,
      password,
      supervisorPid: child.pid!,
      pids: ready.pids,
      call,
      upload,
      stop,
      kill: () => killWithChildren(child),
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Ready {
  readonly http: string;
  readonly boot: string;
  readonly iscsi: { readonly portal: string };
  readonly pids: Record<string, number>;
}

function readyLine(child: ChildProcess): Promise<Ready> {
  let log = "";
  child.stderr!.on("data", (text) => {
    log += text;
  });
  return new Promise((done, failed) => {
    child.once("exit", () => failed(new Error(`npm run dev ended before it was ready:\n${log}`)));
    createInterface({ input: child.stdout! }).once("line", (line) => done(JSON.parse(line)));
  });
}

async function caller(url: string, password: string): Promise<Pick<DevNode, "call" | "upload">> {
  let token = "";
  const call: DevNode["call"] = async (method, path, body) => {
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${await response.text()}`);
    return (response.status === 204 ? undefined : await response.json()) as never;
  };
  const session = await call<{ token: string }>("POST", "/session", { user: "admin", password });
  token = session.token;
  const upload: DevNode["upload"] = async (imageId, content) => {
    const response = await fetch(`${url}/api/v1/images/${imageId}/data`, {
      method: "PUT",
      headers: { "content-type": "application/octet-stream", authorization: `Bearer ${token}` },
      body: content,
    });
    if (!response.ok) throw new Error(`upload: ${await response.text()}`);
  };
  return { call, upload };
}
