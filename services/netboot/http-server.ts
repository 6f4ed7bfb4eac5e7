/**
 * The boot web server: plain HTTP, because firmware has nothing else.
 *
 *   GET /boot.ipxe?mac=&uuid=&arch=    the script of one machine, never cached
 *   GET /loader/NAME                   a loader, for UEFI HTTP boot; HEAD and ranges
 *   GET /                              302 to the console over https
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { explainError } from "#lib/model/errors.ts";
import { type MacAddress, parseMacAddress, parseUuid } from "#lib/model/ids.ts";
import { closeServer } from "#lib/rpc/serve.ts";
import type { BootAnswer, BootRequest } from "#services/api/boot-schema.ts";
import type { Counters } from "./counters.ts";
import { listenError } from "./dhcp-socket.ts";
import type { Loaders } from "./loader.ts";
import type { RateLimit } from "./rate-limit.ts";
import { type ScriptContext, scriptFor, scriptType, waitScript } from "./script.ts";

export interface HttpOptions {
  readonly host: string;
  /** 0 = a free one. */
  readonly port: number;
  /** Of the console, for browsers that come here. */
  readonly httpsPort: number;
  readonly loaders: () => Loaders;
  readonly counters: Counters;
  readonly rateLimit: RateLimit;
  readonly unknownWaitSeconds: () => number;
  readonly boot: (request: BootRequest) => Promise<BootAnswer>;
  /** The MAC that answers to an address of this segment, if the kernel knows. */
  readonly neighbour: (ip: string) => Promise<MacAddress | undefined>;
  readonly loading: (ip: string, file: string) => void;
  readonly scripted: (request: BootRequest & { ip: string }, outcome: ScriptOutcome) => void;
  readonly failed: (error: unknown) => void;
}

export interface ScriptOutcome {
  readonly action: BootAnswer["action"];
  readonly detail?: string;
  readonly failure?: string;
}

export interface HttpServer {
  readonly host: string;
  readonly port: number;
  close(): Promise<void>;
}

export async function openHttpServer(options: HttpOptions): Promise<HttpServer> {
  const server: Server = createServer((request, response) => {
    respond(request, response, options).catch((error: unknown) => {
      options.failed(error);
      options.counters.add("http.error");
      if (!response.headersSent) text(response, 500, "Internal error.\n");
      else response.destroy();
    });
  });
  server.maxConnections = 1024;
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => reject(listenError(cause, options)));
    server.listen(options.port, options.host, () => resolve());
  });
  const { address, port } = server.address() as AddressInfo;
  return { host: address, port, close: () => closeServer(server) };
}

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  options: HttpOptions,
): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    options.counters.add("http.refused.method");
    response.setHeader("allow", "GET, HEAD");
    return text(response, 405, "Only GET and HEAD are served here.\n");
  }
  const url = URL.parse(request.url ?? "/", "http://netboot");
  if (url?.pathname === "/boot.ipxe") return bootScript(request, response, url, options);
  const loader = /^\/loader\/([\w.-]+)$/.exec(url?.pathname ?? "")?.[1];
  if (loader !== undefined) return loaderFile(request, response, loader, options);
  if (url?.pathname === "/") {
    options.counters.add("http.redirect");
    response.setHeader("location", `https://${consoleHost(request, options)}/`);
    return text(response, 302, "The console is served over https.\n");
  }
  options.counters.add("http.not-found");
  text(response, 404, "There is nothing here.\n");
}

/** Host of the console as this browser reaches it: only characters that can be in a host name. */
function consoleHost(request: IncomingMessage, options: HttpOptions): string {
  const named = /^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?$/.exec(
    request.headers.host ?? "",
  )?.[1];
  const host = named ?? localAddress(request);
  return options.httpsPort === 443 ? host : `${host}:${options.httpsPort}`;
}

function localAddress(request: IncomingMessage): string {
  return (request.socket.localAddress ?? "127.0.0.1").replace(/^::ffff:/, "");
}

function text(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, {
    "content-type": scriptType,
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
  });
  response.end(response.req.method === "HEAD" ? undefined : body);
}

async function bootScript(
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
  options: HttpOptions,
): Promise<void> {
  const { counters } = options;
  const mac = parseMacAddress(url.searchParams.get("mac") ?? "");
  if (mac === undefined) {
    counters.add("http.script.bad-request");
    const advice = "Ask for /boot.ipxe?mac=MAC&uuid=UUID with the machine's MAC address.\n";
    return text(response, 400, advice);
  }
  const uuid = parseUuid(url.searchParams.get("uuid") ?? "");
  const archCode = /^\d{1,4}$/.exec(url.searchParams.get("arch") ?? "")?.[0];
  const ip = (request.socket.remoteAddress ?? "").replace(/^::ffff:/, "");
  const asked = {
    mac,
    ...(uuid === undefined ? {} : { uuid }),
    ...(archCode === undefined ? {} : { arch: Number(archCode) }),
    ip,
  };
  const attempt = Math.min(
    Number(/^\d{1,6}$/.exec(url.searchParams.get("attempt") ?? "")?.[0] ?? 0),
    999_999,
  );
  const port = request.socket.localPort;
  const context: ScriptContext = {
    mac,
    uuid,
    ip,
    local: localAddress(request),
    base: `http://${localAddress(request)}${port === 80 ? "" : `:${port}`}`,
    query: [
      `mac=${mac}`,
      ...(uuid === undefined ? [] : [`uuid=${uuid}`]),
      ...(archCode === undefined ? [] : [`arch=${Number(archCode)}`]),
    ].join("&"),
    attempt,
    unknownWaitSeconds: options.unknownWaitSeconds(),
  };
  // HEAD must not clone an image, nor spend a machine's quota.
  if (request.method === "HEAD") return text(response, 200, "");
  if (!options.rateLimit.take(mac)) {
    counters.add("http.script.rate-limited");
    return text(response, 200, waitScript("It asks too often.", context));
  }
  // The secret is for this MAC: another machine of the segment can't just ask for it by name.
  const owner = await options.neighbour(ip);
  if (owner !== undefined && owner !== mac) {
    counters.add("http.script.wrong-mac");
    const message = `This address belongs to ${owner}: boot from the card that asked DHCP.`;
    return text(response, 200, waitScript(message, context));
  }
  text(response, 200, await answerScript(asked, context, options));
}

async function answerScript(
  asked: BootRequest & { ip: string },
  context: ScriptContext,
  options: HttpOptions,
): Promise<string> {
  try {
    const answer = await options.boot(asked);
    options.counters.add(`http.script.${answer.action}`);
    options.scripted(asked, {
      action: answer.action,
      ...(answer.action === "san" ? { detail: answer.iqn } : { failure: answer.message }),
    });
    return scriptFor(answer, context);
  } catch (error) {
    options.counters.add("http.script.api-failed");
    const message = explainError(error);
    options.failed(error);
    options.scripted(asked, { action: "error", failure: message });
    return waitScript(`Its boot server is not ready: ${message}`, context);
  }
}

function loaderFile(
  request: IncomingMessage,
  response: ServerResponse,
  name: string,
  options: HttpOptions,
): void {
  const bytes = options.loaders().get(name);
  if (bytes === undefined) {
    options.counters.add("http.loader.not-found");
    text(response, 404, "No such loader here.\n");
    return;
  }
  const range = rangeOf(request.headers.range, bytes.length);
  if (range === "unsatisfiable") {
    options.counters.add("http.loader.bad-range");
    response.setHeader("content-range", `bytes */${bytes.length}`);
    text(response, 416, "That range is past the file's end.\n");
    return;
  }
  options.counters.add("http.loader");
  const ip = (request.socket.remoteAddress ?? "").replace(/^::ffff:/, "");
  if (request.method === "GET") options.loading(ip, name);
  const part = range === undefined ? bytes : bytes.subarray(range.first, range.last + 1);
  response.writeHead(range === undefined ? 200 : 206, {
    "content-type": name.endsWith(".efi") ? "application/efi" : "application/octet-stream",
    "content-length": part.length,
    "accept-ranges": "bytes",
    ...(range === undefined
      ? {}
      : { "content-range": `bytes ${range.first}-${range.last}/${bytes.length}` }),
  });
  response.end(request.method === "HEAD" ? undefined : part);
}

/**
 * One range of RFC 9110 section 14.1.2. Undefined, so the whole file, for no range, several, or
 * one that isn't understood, as the RFC allows.
 */
export function rangeOf(
  header: string | undefined,
  size: number,
): { first: number; last: number } | "unsatisfiable" | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? "");
  if (match === null || (match[1] === "" && match[2] === "")) return undefined;
  if (match[1] === "") {
    const length = Math.min(Number(match[2]), size);
    return length === 0 ? "unsatisfiable" : { first: size - length, last: size - 1 };
  }
  const first = Number(match[1]);
  const last = match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (match[2] !== "" && Number(match[2]) < first) return undefined;
  return first >= size ? "unsatisfiable" : { first, last };
}
