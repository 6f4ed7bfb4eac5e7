/** `/var/lib/keelson/node.json`: what the installer tells an installed node about itself. */
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { networkShape } from "#lib/network/schema.ts";
import type { Answers } from "./schema.ts";

export const nodeConfigVersion = 1;

const nodeConfig = z.object({
  version: z.literal(nodeConfigVersion),
  /** UUID made at install. */
  id: z.string(),
  name: z.string(),
  timeZone: z.string(),
  ntp: z.array(z.string()),
  /** As installed; what was changed since is services/network's (docs/formats/node.md). */
  network: networkShape,
  /** argon2id or sha512-crypt. */
  adminHash: z.string(),
  store: z.object({ device: z.string() }),
  /** Image version that was installed; the booted one may be newer. */
  installedVersion: z.string(),
});

export type NodeConfig = z.output<typeof nodeConfig>;

export interface InstallFacts {
  readonly id: string;
  /** Where the answers have none, of a password that was made up. */
  readonly adminHash: string;
  readonly storeDevice: string;
  readonly imageVersion: string;
}

export function nodeConfigOf(answers: Answers, facts: InstallFacts): NodeConfig {
  return nodeConfig.parse({
    version: nodeConfigVersion,
    id: facts.id,
    name: answers.node.name,
    timeZone: answers.timeZone,
    ntp: answers.ntp,
    network: answers.network,
    adminHash: facts.adminHash,
    store: { device: facts.storeDevice },
    installedVersion: facts.imageVersion,
  });
}

/** The configuration in `text`; FORMAT_UNKNOWN if it is of another version, else FORMAT_CORRUPT. */
export function parseNodeConfig(text: string, name: string): NodeConfig {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KeelsonError("FORMAT_CORRUPT", `${name} is not valid JSON.`, {
      object: name,
      remedy: "Install this node again; its store is kept if the answer file names it.",
      cause,
    });
  }
  const version = (value as { version?: unknown } | null)?.version;
  if (typeof version === "number" && version !== nodeConfigVersion) {
    throw new KeelsonError(
      "FORMAT_UNKNOWN",
      `${name} has version ${version}; this image reads ${nodeConfigVersion}.`,
      { object: name, remedy: "Boot the image that wrote it." },
    );
  }
  const result = nodeConfig.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new KeelsonError("FORMAT_CORRUPT", `${name}: ${issue.path.join(".")} ${issue.message}.`, {
    object: name,
    remedy: "Install this node again; its store is kept if the answer file names it.",
  });
}
