/**
 * Leases on disk: one JSON line a change, `{"ip":..}` for a lease and `{"free":"ADDRESS"}` for its
 * end. An acknowledgement goes out only after its line is synced; lines that come while a sync
 * runs share the next one. A torn last line, left by a power cut, is dropped: its acknowledgement
 * was never sent.
 */
import { existsSync, readFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { parseMacAddress } from "#lib/model/ids.ts";
import { writeStateFile } from "#lib/service/state-file.ts";
import { formatIpv4, type Ipv4, parseIpv4 } from "#lib/wire/dhcp/address.ts";
import { type Lease, leaseRecord } from "./lease.ts";

const record = z.union([
  z.object({ free: z.string() }),
  z.object({
    ip: z.string(),
    mac: z.string(),
    clientId: z.string().min(1).max(600),
    hostname: z.string().max(255).optional(),
    scope: z.string(),
    state: z.enum(["offered", "bound", "declined"]),
    firmware: z.boolean(),
    expiresAtMs: z.number(),
  }),
]);

export interface LoadedLeases {
  readonly leases: Lease[];
  /** Lines that could not be read. */
  readonly skipped: number;
}

export function loadLeases(path: string): LoadedLeases {
  const leases = new Map<Ipv4, Lease>();
  let skipped = 0;
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const parsed = record.safeParse(parseJson(line));
    if (!parsed.success) {
      skipped++;
      continue;
    }
    const value = parsed.data;
    const ip = parseIpv4("free" in value ? value.free : value.ip);
    const mac = "free" in value ? undefined : parseMacAddress(value.mac);
    if (ip === undefined) skipped++;
    else if ("free" in value) leases.delete(ip);
    else if (mac === undefined) skipped++;
    else {
      const { hostname, ...rest } = value;
      // Later lines win, in their order: a client that moved keeps only its last address.
      leases.delete(ip);
      leases.set(ip, { ...rest, ip, mac, ...(hostname === undefined ? {} : { hostname }) });
    }
  }
  return { leases: [...leases.values()], skipped };
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Lines beyond the live leases before the file is written anew. */
const slackLines = 4096;

export class LeaseJournal {
  #path: string;
  #live: () => Lease[];
  #file: FileHandle | undefined;
  #lines = 0;
  #waiting: string[] = [];
  #running: Promise<void> | undefined;

  /** Writes `path` anew with the live leases, so that it is short at each start. */
  static async open(path: string, live: () => Lease[]): Promise<LeaseJournal> {
    const journal = new LeaseJournal(path, live);
    await journal.#compact();
    return journal;
  }

  private constructor(path: string, live: () => Lease[]) {
    this.#path = path;
    this.#live = live;
  }

  put(lease: Lease): Promise<void> {
    return this.#append(leaseRecord(lease));
  }

  free(ip: Ipv4): Promise<void> {
    return this.#append(JSON.stringify({ free: formatIpv4(ip) }));
  }

  async close(): Promise<void> {
    await this.#running;
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Resolves once the line is on disk. */
  async #append(line: string): Promise<void> {
    this.#waiting.push(line);
    // A sync that already runs may not cover this line: wait it out, then share the next.
    while (this.#waiting.includes(line)) {
      this.#running ??= this.#write().finally(() => {
        this.#running = undefined;
      });
      await this.#running;
    }
  }

  async #write(): Promise<void> {
    const lines = [...this.#waiting];
    if (this.#lines + lines.length > this.#live().length + slackLines) await this.#compact();
    await this.#file!.write(`${lines.join("\n")}\n`);
    await this.#file!.datasync();
    this.#lines += lines.length;
    this.#waiting = this.#waiting.slice(lines.length);
  }

  async #compact(): Promise<void> {
    const live = this.#live();
    await this.#file?.close();
    writeStateFile(this.#path, live.map((lease) => `${leaseRecord(lease)}\n`).join(""));
    this.#file = await open(this.#path, "a", 0o600);
    this.#lines = live.length;
  }
}
