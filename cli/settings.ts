/** Where `keelson` is logged in: one file of mode 0600, since tokens stand in it. */
import { mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";

const serverSchema = z.object({
  token: z.string().nullable(),
  user: z.string(),
  expiresAt: z.string().nullable(),
  /** The node's own CA, pinned at log-in; null: the system's CAs, or plain HTTP. */
  ca: z.string().nullable(),
});
const settingsSchema = z.object({
  current: z.string().nullable(),
  servers: z.record(z.string(), serverSchema),
});
export type Settings = z.infer<typeof settingsSchema>;

export function settingsPath(environment = process.env): string {
  const base = environment.XDG_CONFIG_HOME || join(homedir(), ".config");
  return join(base, "keelson", "session.json");
}

export function readSettings(path = settingsPath()): Settings {
  const content = readStateFile(path);
  if (content === undefined) return { current: null, servers: {} };
  const parsed = settingsSchema.safeParse(content);
  if (parsed.success) return parsed.data;
  throw new KeelsonError("FORMAT_CORRUPT", `${path} can't be understood.`, {
    remedy: "Delete it, then log in again.",
  });
}

export function writeSettings(settings: Settings, path = settingsPath()): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writeStateFile(path, `${JSON.stringify(settings, null, 2)}\n`);
}

/** `node1` to `https://node1`; keeps scheme and port, drops the path. */
export function serverUrl(text: string): string {
  const url = text.includes("://") ? text : `https://${text}`;
  if (URL.canParse(url)) {
    const { protocol, origin } = new URL(url);
    if (protocol === "https:" || protocol === "http:") return origin;
  }
  throw new KeelsonError("INVALID_ARGUMENT", `${text} is not a server's address.`, {
    remedy: "Give one like https://192.0.2.10 or node1:8443.",
  });
}
