/**
 * Files about the node's networks (docs/formats/node.md). What is read back was checked when it was
 * written, so only its form is looked at: a rule that a later version adds can't keep a node from
 * starting.
 */
import { join } from "node:path";
import { z } from "zod";
import { type Codec, FormattedFile } from "#lib/data-format/formatted-file.ts";
import type { HeldFormatsFile } from "#lib/data-format/held.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { networkConfigVersion, networkShape } from "./schema.ts";

/** The configuration that boots. */
export const confirmedName = "confirmed.json";
/** One that was applied and waits for its confirmation. */
export const pendingName = "pending.json";

const handover = z.object({
  version: z.literal(networkConfigVersion),
  hostName: z.string(),
  ntp: z.array(z.string()),
  /** As installed. */
  network: networkShape,
});

const stored = z.object({
  version: z.literal(networkConfigVersion),
  /** Of the change it came with. */
  id: z.string(),
  /** ISO 8601. */
  at: z.string(),
  network: networkShape,
});

/** `/run/keelson/network.json`: from node-setup, at each boot. */
export type NetworkHandover = z.output<typeof handover>;
export type StoredNetwork = z.output<typeof stored>;

export function readHandover(value: unknown, name: string): NetworkHandover {
  return read(handover, value, name);
}

/** FORMAT_UNKNOWN if it is of another version, FORMAT_CORRUPT if it isn't one. */
export function readStored(value: unknown, name: string): StoredNetwork {
  return read(stored, value, name);
}

/** The two files in network's state directory. */
export function storedNetworks(folder: string, held: HeldFormatsFile) {
  const file = (fileName: string) => {
    const path = join(folder, fileName);
    const first: Codec<StoredNetwork> = {
      format: 1,
      decode: (document) => readStored(document, path),
      encode: ({ version: _, ...rest }) => rest,
    };
    return new FormattedFile({
      ...{ path, held, codecs: [first], name: "network", member: "version" },
      remedy: "Move it away; the node then starts with the networks it was installed with.",
    });
  };
  return { confirmed: file(confirmedName), pending: file(pendingName) };
}

function read<Schema extends z.ZodType>(schema: Schema, value: unknown, name: string) {
  const version = (value as { version?: unknown } | null)?.version;
  if (typeof version === "number" && version !== networkConfigVersion) {
    throw new KeelsonError(
      "FORMAT_UNKNOWN",
      `${name} has version ${version}; this image reads ${networkConfigVersion}.`,
      { object: name, remedy: "Boot the image that wrote it." },
    );
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new KeelsonError("FORMAT_CORRUPT", `${name}: ${issue.path.join(".")} ${issue.message}.`, {
    object: name,
    remedy: "Move it away; the node then starts with the networks it was installed with.",
  });
}
