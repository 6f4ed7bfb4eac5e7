/**
 * A channel: an index over HTTPS that lists bundles. Nothing in it is believed but where to look:
 * a bundle is judged by its own signature. A neighbour node gives the same index of its spool, and
 * is known by its CA's fingerprint.
 *
 *   {"format": 1, "bundles": [{"url", "version", "sizeBytes", "notes"}]}
 *
 * `url` is relative to the index. A download that breaks off goes on where it stopped.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Agent, Response } from "undici";
import { z } from "zod";
import { isVersion } from "#lib/bundle/version.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { fetchServerCa, sameFingerprint } from "#lib/rpc/server-ca.ts";

const channelSchema = z.object({
  format: z.literal(1),
  bundles: z
    .array(
      z.object({
        url: z.string().min(1).max(2000),
        version: z.string().refine(isVersion, "is not YYYY.M.PATCH"),
        sizeBytes: z.number().int().positive(),
        notes: z.string().max(64_000).default(""),
      }),
    )
    .max(100),
});
export type Channel = z.infer<typeof channelSchema>;

/** Where an index is. A fingerprint: of a neighbour's CA, in whose place no other is taken. */
export interface Origin {
  readonly address: string;
  readonly fingerprint: string | null;
}

export interface Patience {
  /** Without a byte, milliseconds. */
  readonly idleMs: number;
  /** For all of an index. */
  readonly indexMs: number;
  /** Between two attempts, doubled each time, and at most `longestPauseMs`. */
  readonly pauseMs: number;
  readonly longestPauseMs: number;
  /** Attempts in a row that brought less than `leastBytes`. */
  readonly retries: number;
  /** In `paceMs` a download brings so much, or counts as broken. */
  readonly leastBytes: number;
  readonly paceMs: number;
}

export const defaultPatience: Patience = {
  idleMs: 30_000,
  indexMs: 120_000,
  pauseMs: 2_000,
  longestPauseMs: 30_000,
  retries: 8,
  leastBytes: 65_536,
  paceMs: 60_000,
};

const largestIndexBytes = 4 << 20;
const mostRedirects = 5;
const neighbourIndexPath = "/api/v1/upgrade/index.json";

export class ChannelReader {
  readonly #patience: Patience;
  /** Made when first needed: most nodes have no channel, and undici is a tenth of a start. */
  #public: Agent | undefined;
  /** Of neighbours, by address and fingerprint. */
  readonly #pinned = new Map<string, Agent>();

  constructor(patience: Patience = defaultPatience) {
    this.#patience = patience;
  }

  async close(): Promise<void> {
    for (const agent of [this.#public, ...this.#pinned.values()]) await agent?.destroy();
  }

  async #agent(ca?: string): Promise<Agent> {
    const { idleMs } = this.#patience;
    const { Agent } = await import("undici");
    return new Agent({
      ...{ headersTimeout: idleMs, bodyTimeout: idleMs },
      connect: { timeout: idleMs, ...(ca === undefined ? {} : { ca }) },
    });
  }

  /** UNAVAILABLE, FORMAT_UNKNOWN; PERMISSION_DENIED: another node is at the neighbour's address. */
  async readIndex(origin: Origin, stopped: AbortSignal): Promise<Channel> {
    const { fingerprint, address } = origin;
    const url = new URL(fingerprint === null ? address : neighbourIndexPath, address);
    const signal = AbortSignal.any([stopped, AbortSignal.timeout(this.#patience.indexMs)]);
    const response = await this.#get(url, {}, origin, signal);
    if (response.status !== 200) {
      await response.body?.cancel();
      throw unexpectedStatus(url, response.status);
    }
    const text = await this.#readText(response, url, signal);
    const parsed = channelSchema.safeParse(parseJson(text));
    if (!parsed.success) {
      throw new KeelsonError(
        "FORMAT_UNKNOWN",
        `This is no index of a channel: ${z.prettifyError(parsed.error).split("\n")[0]}.`,
        { operation: "read channel", object: url.href, remedy: "Check the address." },
      );
    }
    return {
      ...parsed.data,
      bundles: parsed.data.bundles.map((bundle) => ({
        ...bundle,
        url: bundleAddress(bundle.url, url, fingerprint !== null),
      })),
    };
  }

  async #readText(response: Response, url: URL, signal: AbortSignal): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    try {
      for await (const bytes of response.body ?? []) {
        text += decoder.decode(bytes as Uint8Array, { stream: true });
        if (text.length <= largestIndexBytes) continue;
        throw new KeelsonError("FORMAT_UNKNOWN", "The index is larger than 4 MiB.", {
          operation: "read channel",
          object: url.href,
          remedy: "Check the address.",
        });
      }
      return text + decoder.decode();
    } catch (cause) {
      if (cause instanceof KeelsonError) throw cause;
      throw unanswered(url, signal.aborted ? (signal.reason as Error) : (cause as Error));
    }
  }

  /** The bytes of a bundle; a broken connection is taken up again where it broke. */
  async *readBundle(
    address: string,
    sizeBytes: number,
    origin: Origin,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const { retries, leastBytes, paceMs, pauseMs, longestPauseMs } = this.#patience;
    const url = new URL(address);
    let at = 0;
    let lastFailure = 0;
    for (let failures = 0; at < sizeBytes; ) {
      try {
        const response = await this.#get(
          url,
          at === 0 ? {} : { range: `bytes=${at}-` },
          origin,
          signal,
        );
        await checkAnswer(response, url, at, sizeBytes);
        let paceAt = at;
        let paceSince = performance.now();
        for await (const bytes of response.body ?? []) {
          const piece = bytes as Uint8Array;
          at += piece.length;
          if (at > sizeBytes) throw otherSize(url, sizeBytes, `more than that`);
          yield piece;
          if (performance.now() - paceSince < paceMs) continue;
          if (at - paceAt < leastBytes) throw new Error("it sends next to nothing");
          paceAt = at;
          paceSince = performance.now();
        }
        if (at < sizeBytes) throw new Error("the connection ended early");
      } catch (error) {
        if (error instanceof KeelsonError && error.code !== "UNAVAILABLE") throw error;
        if (signal.aborted) throw signal.reason;
        if (at - lastFailure >= leastBytes) failures = 0;
        lastFailure = at;
        if (++failures > retries) {
          throw error instanceof KeelsonError ? error : unanswered(url, error as Error);
        }
        const pause = Math.min(longestPauseMs, pauseMs * 2 ** (failures - 1));
        await sleep(pause, undefined, { signal });
      }
    }
  }

  /** Follows a channel's redirections, to https:// only; a neighbour has none to give. */
  async #get(
    first: URL,
    headers: Record<string, string>,
    origin: Origin,
    signal: AbortSignal,
  ): Promise<Response> {
    const pinned = origin.fingerprint !== null;
    const { fetch } = await import("undici");
    this.#public ??= await this.#agent();
    const dispatcher = pinned ? await this.#neighbour(origin, signal) : this.#public;
    let url = first;
    for (let redirects = 0; ; redirects++) {
      if (url.protocol !== "https:") {
        throw new KeelsonError("INVALID_ARGUMENT", `${url.href} is not an https:// address.`, {
          operation: "read channel",
          remedy: "What is not encrypted is not read.",
        });
      }
      let response: Response;
      try {
        response = await fetch(url, { headers, dispatcher, signal, redirect: "manual" });
      } catch (cause) {
        if (pinned && !signal.aborted) await this.#pinAgain(origin, signal);
        throw unanswered(url, signal.aborted ? (signal.reason as Error) : (cause as Error));
      }
      const location = response.headers.get("location");
      if (![301, 302, 303, 307, 308].includes(response.status) || location === null)
        return response;
      await response.body?.cancel();
      if (pinned || redirects === mostRedirects) {
        throw new KeelsonError("PROTOCOL", `${first.href} leads from one address to the next.`, {
          operation: "read channel",
          object: location.slice(0, 200),
          remedy: "Check the address.",
        });
      }
      url = parseUrl(location, url);
    }
  }

  /** Another node at its address is said as that, not as a fault of the network. */
  async #pinAgain(origin: Origin, signal: AbortSignal): Promise<void> {
    const key = pinKey(origin);
    const agent = this.#pinned.get(key);
    this.#pinned.delete(key);
    void agent?.close();
    await pinnedCa(origin.address, origin.fingerprint!, signal);
  }

  async #neighbour(origin: Origin, signal: AbortSignal): Promise<Agent> {
    const key = pinKey(origin);
    const known = this.#pinned.get(key);
    if (known !== undefined) return known;
    const { pem } = await pinnedCa(origin.address, origin.fingerprint!, signal);
    const agent = await this.#agent(pem);
    this.#pinned.set(key, agent);
    return agent;
  }
}

function pinKey({ address, fingerprint }: Origin): string {
  return `${new URL(address).origin} ${fingerprint}`;
}

/** The neighbour's CA, if it is the one that a person has compared. */
async function pinnedCa(address: string, fingerprint: string, signal: AbortSignal) {
  const shown = await shownCa(address, signal);
  if (sameFingerprint(shown.fingerprint, fingerprint)) return shown;
  throw new KeelsonError(
    "PERMISSION_DENIED",
    `The node at ${address} is not the one that was trusted: it shows ${shown.fingerprint}.`,
    {
      operation: "look at the neighbour node",
      object: address,
      remedy: "If it was installed anew, compare this with its screen and set it again.",
    },
  );
}

async function shownCa(address: string, signal: AbortSignal) {
  try {
    return await fetchServerCa(address, signal);
  } catch (cause) {
    throw unanswered(new URL(address), cause as Error);
  }
}

/**
 * For a neighbour that is about to be set: refuses it without a fingerprint, with the one it shows,
 * and with a wrong one. One that doesn't answer now may do so later, if a fingerprint is given.
 */
export async function checkNeighbour(
  { address, fingerprint }: Origin,
  signal: AbortSignal,
): Promise<void> {
  if (fingerprint !== null) {
    await pinnedCa(address, fingerprint, signal).catch((error: KeelsonError) => {
      if (error.code !== "UNAVAILABLE") throw error;
    });
    return;
  }
  const shown = await shownCa(address, signal);
  throw new KeelsonError(
    "INVALID_ARGUMENT",
    `The node at ${address} shows the fingerprint ${shown.fingerprint}.`,
    {
      operation: "set the neighbour node",
      object: address,
      remedy: "Compare it with the one on that node's screen, and give it with the address.",
    },
  );
}

async function checkAnswer(
  response: Response,
  url: URL,
  at: number,
  sizeBytes: number,
): Promise<void> {
  const fault = faultOf(response, url, at, sizeBytes);
  if (fault === undefined) return;
  await response.body?.cancel();
  throw fault;
}

function faultOf(response: Response, url: URL, at: number, sizeBytes: number) {
  const { status, headers } = response;
  if (at > 0 && status === 200) {
    return new KeelsonError("UNSUPPORTED", "The server can't go on with a broken download.", {
      object: url.href,
      remedy: "Fetch it again.",
    });
  }
  if (at > 0 && status === 416) return otherSize(url, sizeBytes, `${at}`);
  if (status !== (at === 0 ? 200 : 206)) return unexpectedStatus(url, status);
  if (at > 0) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
    if (range === null || Number(range[1]) !== at) {
      return new KeelsonError("PROTOCOL", "The server goes on at another place than asked for.", {
        object: url.href,
        remedy: "Fetch it again.",
      });
    }
    if (range[2] !== "*" && Number(range[2]) !== sizeBytes)
      return otherSize(url, sizeBytes, range[2]);
    return undefined;
  }
  const length = headers.get("content-length");
  if (length !== null && headers.get("content-encoding") === null && Number(length) !== sizeBytes) {
    return otherSize(url, sizeBytes, length);
  }
  return undefined;
}

function otherSize(url: URL, sizeBytes: number, found: string): KeelsonError {
  return new KeelsonError(
    "FORMAT_CORRUPT",
    `The index says ${sizeBytes} bytes, and the server has ${found}.`,
    { operation: "fetch bundle", object: url.href, remedy: "Tell who keeps the channel." },
  );
}

/** A neighbour's bundles are its own: an index can't send this node anywhere else. */
function bundleAddress(text: string, index: URL, sameOrigin: boolean): string {
  const url = parseUrl(text, index);
  if (url.protocol === "https:" && (!sameOrigin || url.origin === index.origin)) return url.href;
  const why = sameOrigin ? "a node offers only what it has" : "bundles are read by https:// only";
  throw new KeelsonError("FORMAT_UNKNOWN", `The index names ${url.href.slice(0, 200)}: ${why}.`, {
    operation: "read channel",
    object: index.href,
    remedy: "Tell who keeps it.",
  });
}

function parseUrl(text: string, base: URL): URL {
  const url = URL.parse(text, base);
  if (url !== null) return url;
  throw new KeelsonError("FORMAT_UNKNOWN", `"${text.slice(0, 200)}" is no address.`, {
    operation: "read channel",
    object: base.href,
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function unanswered(url: URL, cause: Error): KeelsonError {
  if (cause instanceof KeelsonError) return cause;
  const inner = cause.cause as Error | undefined;
  return new KeelsonError(
    "UNAVAILABLE",
    `${url.host} does not answer (${inner?.message ?? cause.message}).`,
    {
      operation: "read channel",
      object: url.href,
      remedy: "Check the address and the network.",
      cause,
    },
  );
}

function unexpectedStatus(url: URL, status: number): KeelsonError {
  return new KeelsonError("UNAVAILABLE", `${url.href} answers with status ${status}.`, {
    operation: "read channel",
    remedy: "Check the address.",
  });
}
