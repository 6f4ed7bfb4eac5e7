/**
 * A stand-in for api with made-up documents, to work on the console's looks: every state at once,
 * which a real node shows only on a bad day. Not shipped. What depends on looks alone (contrast,
 * names for screen readers, width, frames while scrolling) is tested with it; what the console does
 * is tested against the real api.
 *
 *   node qa/ui/fixture.ts [--port N] [--rows N] [--empty] [--busy]    user admin, any password but "wrong"
 */
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bundleConsole } from "#tools/bundle.ts";
import { accountDocuments, auditHeads, auditPage } from "./fixture-accounts.ts";
import { documents } from "./fixture-documents.ts";
import { identityDocuments, logInDocuments } from "./fixture-identity.ts";
import { nodeDocuments } from "./fixture-node.ts";
import { snapshotDocuments } from "./fixture-snapshots.ts";

export interface FixtureOptions {
  readonly port?: number;
  /** Volumes and audit entries. */
  readonly rows?: number;
  readonly empty?: boolean;
  readonly busy?: boolean;
  /** Readable script, for the inspector. */
  readonly minify?: boolean;
}

export interface Fixture {
  readonly url: string;
  stop(): Promise<void>;
}

const uiDir = resolve(import.meta.dirname, "../../build/ui-fixture");

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
  ".txt": "text/plain; charset=utf-8",
};

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** Builds the console into build/ui-fixture and serves it on loopback. */
export async function startFixture(options: FixtureOptions = {}): Promise<Fixture> {
  const { port = 0, rows = 0, empty = false, busy = false, minify = true } = options;
  await bundleConsole({ outDir: uiDir, minify });
  const state = documents({ rows, empty });
  const entries = empty ? 0 : Math.max(rows, 40);
  const resources: Record<string, unknown> = {
    ...state.resources,
    ...accountDocuments,
    ...identityDocuments,
    ...nodeDocuments(busy),
    ...snapshotDocuments(empty ? 0 : Math.max(rows, 12)),
    "audit/heads": auditHeads(entries),
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://fixture");
    const loggedIn = request.headers.cookie?.includes("fixture=1") ?? false;
    if (!pathname.startsWith("/api/v1/")) return serveFile(pathname, response);
    const path = pathname.slice("/api/v1/".length);
    if (path === "session" && request.method === "POST") {
      if ((await bodyOf(request)).includes('"wrong"')) {
        return json(response, 401, {
          code: "UNAUTHENTICATED",
          title: "User or password is wrong.",
          detail: "Check both and try again.",
        });
      }
      response.setHeader("set-cookie", "fixture=1; HttpOnly; Path=/");
      return json(response, 200, state.session);
    }
    if (logInDocuments[path] !== undefined) return json(response, 200, logInDocuments[path]);
    if (!loggedIn) return json(response, 401, { code: "UNAUTHENTICATED", title: "Log in first." });
    if (path === "session") return json(response, 200, state.session);
    if (path === "session/log-out") return json(response, 200, { url: null });
    if (path === "events") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(": hello\n\n");
      const timer = setInterval(() => response.write(": alive\n\n"), 5000);
      request.on("close", () => clearInterval(timer));
      return;
    }
    if (path === "audit") return json(response, 200, auditPage(entries, searchParams));
    const document = resources[path];
    if (request.method === "GET" && document !== undefined) return json(response, 200, document);
    request.resume();
    json(response, 501, {
      code: "UNSUPPORTED",
      title: `The fixture cannot ${request.method} ${path}.`,
      detail: "Start the real api for this.",
    });
  };

  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

function serveFile(pathname: string, response: ServerResponse): void {
  const path = join(uiDir, normalize(pathname === "/" ? "/index.html" : pathname));
  try {
    const content = readFileSync(path);
    response.writeHead(200, {
      "content-type": types[extname(path)] ?? "application/octet-stream",
      "content-security-policy":
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    });
    response.end(content);
  } catch {
    json(response, 404, { code: "NOT_FOUND", title: `No file ${pathname}.` });
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      port: { type: "string", default: "23500" },
      rows: { type: "string", default: "0" },
      empty: { type: "boolean", default: false },
      busy: { type: "boolean", default: false },
    },
  });
  const { url } = await startFixture({
    port: Number(values.port),
    rows: Number(values.rows),
    empty: values.empty,
    busy: values.busy,
    minify: false,
  });
  console.log(`console fixture on ${url}, user admin`);
}
