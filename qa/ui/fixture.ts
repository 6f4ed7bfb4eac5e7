/**
 * A stand-in for api with made-up documents, to work on the console's looks: every state at once,
 * which a real node shows only on a bad day. Not shipped, and no proof of anything: the tests
 * drive the real api.
 *
 *   node qa/ui/fixture.ts [--port N] [--rows N] [--empty]      user admin, any password but "wrong"
 */
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { extname, join, normalize, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bundleConsole } from "#tools/bundle.ts";
import { documents } from "./fixture-documents.ts";

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "23500" },
    rows: { type: "string", default: "0" },
    empty: { type: "boolean", default: false },
    "no-build": { type: "boolean", default: false },
  },
});

const uiDir = resolve(import.meta.dirname, "../../build/ui-fixture");
if (!values["no-build"]) await bundleConsole({ outDir: uiDir, minify: false });
const state = documents({ rows: Number(values.rows), empty: values.empty });

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

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname } = new URL(request.url ?? "/", "http://fixture");
  const loggedIn = request.headers.cookie?.includes("fixture=1") ?? false;
  if (!pathname.startsWith("/api/v1/")) return serveFile(pathname, response);
  const path = pathname.slice("/api/v1/".length);
  if (path === "session" && request.method === "POST") {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (Buffer.concat(chunks).toString().includes('"wrong"')) {
      return json(response, 401, {
        code: "UNAUTHENTICATED",
        title: "User or password is wrong.",
        detail: "Check both and try again.",
      });
    }
    response.setHeader("set-cookie", "fixture=1; HttpOnly; Path=/");
    return json(response, 200, state.session);
  }
  if (!loggedIn) return json(response, 401, { code: "UNAUTHENTICATED", title: "Log in first." });
  if (path === "session") return json(response, 200, state.session);
  if (path === "events") {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(": hello\n\n");
    const timer = setInterval(() => response.write(": alive\n\n"), 5000);
    request.on("close", () => clearInterval(timer));
    return;
  }
  const document = state.resources[path];
  if (request.method === "GET" && document !== undefined) return json(response, 200, document);
  request.resume();
  json(response, 501, {
    code: "UNSUPPORTED",
    title: `The fixture cannot ${request.method} ${path}.`,
    detail: "Start the real api for this.",
  });
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

const server = createServer((request, response) => void answer(request, response));
server.listen(Number(values.port), "127.0.0.1", () => {
  console.log(`console fixture on http://127.0.0.1:${values.port}, user admin`);
});
