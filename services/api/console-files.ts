/** The built console: hashed assets that never change, and one page that names them. */
import { createReadStream, existsSync, statSync } from "node:fs";
import { join, normalize } from "node:path";
import { Readable } from "node:stream";
import type { Context, Handler } from "hono";
import { KeelsonError } from "#lib/model/errors.ts";

const types: Record<string, string> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  json: "application/json",
  map: "application/json",
  svg: "image/svg+xml",
  png: "image/png",
  ico: "image/x-icon",
  woff2: "font/woff2",
  txt: "text/plain; charset=utf-8",
  webmanifest: "application/manifest+json",
};

const absent = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Keelson</title>
<h1>Keelson</h1>
<p>The API answers, but the web console was not built. In the source tree, build it with
<code>node tools/bundle.ts</code>; meanwhile the command line works: <code>keelson --help</code>.</p>
<p>The API describes itself at <a href="/api/v1/openapi.json">/api/v1/openapi.json</a>.</p>
</html>
`;

/** Serves `directory`; the page of any path that names no file, since the console routes itself. */
export function consoleFiles(directory: string | null): Handler {
  return (context) => {
    const page = directory === null ? undefined : join(directory, "index.html");
    if (directory === null || page === undefined || !existsSync(page)) {
      return context.html(absent, 503);
    }
    const wanted = fileOf(directory, context.req.path);
    if (wanted !== undefined) {
      const hashed = /[.-][A-Za-z0-9_]{8,}\.\w+$/.test(wanted);
      return send(context, wanted, hashed ? "public, max-age=31536000, immutable" : "no-cache");
    }
    if (/\.\w{1,8}$/.test(context.req.path)) {
      throw new KeelsonError("NOT_FOUND", `There is no ${context.req.path}.`);
    }
    return send(context, page, "no-cache");
  };
}

/** Path of a file under `directory`; undefined if there is none, or it would be outside. */
function fileOf(directory: string, path: string): string | undefined {
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    return undefined;
  }
  const file = normalize(join(directory, decoded));
  const inside = file.startsWith(`${normalize(directory)}/`) && !decoded.includes("\0");
  return inside && statSync(file, { throwIfNoEntry: false })?.isFile() ? file : undefined;
}

function send(context: Context, file: string, cacheControl: string): Response {
  const extension = file.split(".").at(-1) ?? "";
  const { size } = statSync(file);
  context.header("content-type", types[extension] ?? "application/octet-stream");
  context.header("content-length", String(size));
  context.header("cache-control", cacheControl);
  if (context.req.method === "HEAD") return context.body(null);
  return context.body(Readable.toWeb(createReadStream(file)) as ReadableStream);
}
