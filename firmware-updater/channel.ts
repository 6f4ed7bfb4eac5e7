/**
 * A channel: an index over HTTPS that lists bundles. Nothing in it is believed but where to look:
 * a bundle is judged by its own signature. A neighbour node gives the same index of its spool.
 *
 *   {"format": 1, "bundles": [{"url", "version", "sizeBytes", "notes"}]}
 *
 * `url` is relative to the index. A download that breaks off goes on where it stopped.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, fetch } from "undici";
import { z } from "zod";
import { isVersion } from "#lib/bundle/version.ts";
import { KeelsonError } from "#lib/model/errors.ts";

const channelSchema = z.object({
  format: z.literal(1),
  bundles: z
    .array(
      z.object({
        url: z.string().min(1).max(2000),
        version: z.string().refine(isVersion, "is not YYYY.M.PATCH"),
        sizeBytes: z.int().positive(),
        notes: z.string().max(64_000).default(""),
      }),
    )
    .max(100),
});
export type Channel = z.infer<typeof channelSchema>;

const largestIndexBytes = 4 << 20;
const timeoutMs = 30_000;
const retries = 8;

const checked = new Agent({ headersTimeout: timeoutMs, bodyTimeout: timeoutMs });
/** A neighbour's certificate is its own; what comes from it is judged by its signature alone. */
const unchecked = new Agent({
  headersTimeout: timeoutMs,
  bodyTimeout: timeoutMs,
  connect: { rejectUnauthorized: false },
});

export async function readChannel(
  address: string,
  neighbour: boolean,
  signal: AbortSignal,
): Promise<Channel> {
  const url = neighbour ? new URL("/api/v1/upgrade/index.json", address) : new URL(address);
  const response = await get(url, {}, neighbour, signal);
  if (response.status !== 200) throw unexpectedStatus(url, response.status);
  let text = "";
  for await (const bytes of response.body ?? []) {
    text += Buffer.from(bytes).toString("utf8");
    if (text.length > largestIndexBytes) {
      throw new KeelsonError("FORMAT_UNKNOWN", "The index is larger than 4 MiB.", {
        object: url.href,
      });
    }
  }
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
      url: new URL(bundle.url, url).href,
    })),
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The bytes of a bundle; a broken connection is taken up again where it broke. */
export async function* readRemote(
  address: string,
  sizeBytes: number,
  neighbour: boolean,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const url = new URL(address);
  let at = 0;
  for (let failures = 0; at < sizeBytes; ) {
    try {
      const headers = at === 0 ? {} : { range: `bytes=${at}-` };
      const response = await get(url, headers, neighbour, signal);
      if (at > 0 && response.status === 200) {
        throw new KeelsonError("UNSUPPORTED", "The server can't go on with a broken download.", {
          object: url.href,
          remedy: "Fetch it again.",
        });
      }
      if (response.status !== 200 && response.status !== 206) {
        throw unexpectedStatus(url, response.status);
      }
      for await (const bytes of response.body ?? []) {
        at += (bytes as Uint8Array).length;
        failures = 0;
        yield bytes as Uint8Array;
      }
      if (at < sizeBytes) throw new Error("the connection ended early");
    } catch (error) {
      const final = error instanceof KeelsonError && error.code !== "UNAVAILABLE";
      if (final || signal.aborted || ++failures > retries) throw error;
      await sleep(Math.min(30_000, 1000 * 2 ** failures), undefined, { signal });
    }
  }
}

async function get(
  url: URL,
  headers: Record<string, string>,
  neighbour: boolean,
  signal: AbortSignal,
) {
  if (url.protocol !== "https:") {
    throw new KeelsonError("INVALID_ARGUMENT", `${url.href} is not an https:// address.`);
  }
  try {
    const dispatcher = neighbour ? unchecked : checked;
    return await fetch(url, { headers, dispatcher, signal, redirect: "follow" });
  } catch (cause) {
    const inner = (cause as Error).cause as Error | undefined;
    throw new KeelsonError(
      "UNAVAILABLE",
      `${url.host} does not answer (${inner?.message ?? (cause as Error).message}).`,
      {
        operation: "read channel",
        object: url.href,
        remedy: "Check the address and the network.",
        cause,
      },
    );
  }
}

function unexpectedStatus(url: URL, status: number): KeelsonError {
  return new KeelsonError("UNAVAILABLE", `${url.href} answers with status ${status}.`, {
    operation: "read channel",
    remedy: "Check the address.",
  });
}
