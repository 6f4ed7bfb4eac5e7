/** Machines seen, and how far each came: observed, bounded, lost at a restart. */
import type { MacAddress } from "#lib/model/ids.ts";
import type { ClientStage, ClientView } from "./schema.ts";

export interface Observation {
  readonly mac: MacAddress;
  readonly stage: ClientStage;
  readonly uuid?: string | undefined;
  readonly arch?: number | undefined;
  readonly ip?: string | undefined;
  readonly interface?: string | undefined;
  readonly action?: ClientView["action"] | undefined;
  readonly detail?: string | undefined;
  readonly failure?: string | undefined;
}

export const maxClients = 4096;
/**
 * Firmware repeats itself: the same stage with the same detail within this time is one event. A
 * DHCP repeated later is another boot; a loader or script without one before it never is, and EDK2
 * asks for its loader twice, seconds apart on a slow machine.
 */
const repeatMs = { dhcp: 5000, loader: 120_000, script: 120_000 } as const;
/** iPXE asks DHCP again right after it was loaded: that is the same boot, not a new one. */
const chainMs = 120_000;

type Entry = Omit<ClientView, "stage" | "at" | "stages"> & {
  readonly stage: ClientStage;
  readonly atMs: number;
  readonly stagesMs: Partial<Record<ClientStage, number>>;
};

export class ClientTable {
  #now: () => number;
  #clients = new Map<MacAddress, Entry>();
  #byIp = new Map<string, MacAddress>();

  constructor(now: () => number) {
    this.#now = now;
  }

  macAt(ip: string): MacAddress | undefined {
    return this.#byIp.get(ip);
  }

  /** Notes what was seen; true if it is news that api should hear. */
  observe(seen: Observation, options: { readonly chained?: boolean } = {}): boolean {
    const now = this.#now();
    const before = this.#clients.get(seen.mac);
    const { stage: _, ...facts } = seen;
    const known = Object.fromEntries(
      Object.entries(facts).filter(([, value]) => value !== undefined),
    ) as Partial<Entry>;
    const sameBoot =
      options.chained === true &&
      seen.stage === "dhcp" &&
      before?.stage === "loader" &&
      now - before.atMs < chainMs;
    const repeated =
      before?.stage === seen.stage &&
      before.detail === seen.detail &&
      before.failure === seen.failure &&
      now - before.atMs < repeatMs[seen.stage];
    // The uuid, address and architecture stay known; what a stage said belongs to that stage.
    const { detail: _detail, failure: _failure, action: _action, ...lasting } = before ?? {};
    const base = sameBoot || repeated ? before : lasting;
    const kept = sameBoot ? { detail: before.detail } : {};
    const fresh = seen.stage === "dhcp" && !sameBoot ? {} : (before?.stagesMs ?? {});
    const entry = {
      ...base,
      ...known,
      ...kept,
      mac: seen.mac,
      stage: sameBoot ? "loader" : seen.stage,
      atMs: repeated || sameBoot ? before.atMs : now,
      stagesMs: sameBoot || repeated ? before.stagesMs : { ...fresh, [seen.stage]: now },
    } as Entry;
    this.#store(entry, before);
    return !sameBoot && !repeated;
  }

  #store(entry: Entry, before: Entry | undefined): void {
    const mac = entry.mac as MacAddress;
    if (before?.ip !== undefined && this.#byIp.get(before.ip) === mac) {
      this.#byIp.delete(before.ip);
    }
    this.#clients.delete(mac);
    this.#clients.set(mac, entry);
    if (entry.ip !== undefined) this.#byIp.set(entry.ip, mac);
    if (this.#clients.size <= maxClients) return;
    const [oldest, gone] = this.#clients.entries().next().value!;
    this.#clients.delete(oldest);
    if (gone.ip !== undefined && this.#byIp.get(gone.ip) === oldest) this.#byIp.delete(gone.ip);
  }

  /** The latest first. */
  views(): ClientView[] {
    return [...this.#clients.values()].reverse().map(({ atMs, stagesMs, ...entry }) => ({
      ...entry,
      at: new Date(atMs).toISOString(),
      stages: Object.fromEntries(
        Object.entries(stagesMs).map(([stage, ms]) => [stage, new Date(ms).toISOString()]),
      ),
    }));
  }
}
