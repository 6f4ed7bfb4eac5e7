/** What the installer tells the console, and what it takes from it, over its unix socket. */
import { z } from "zod";

export interface PoolView {
  readonly id: string;
  /** Empty if it has none. */
  readonly name: string;
}

export interface ContentView {
  /** `Keelson pool … on /dev/vda8`. */
  readonly text: string;
  readonly pool: PoolView | null;
}

export interface DiskView {
  readonly path: string;
  readonly sizeBytes: number;
  readonly model: string;
  readonly serial: string;
  /** The medium this system was started from, or one with answers. */
  readonly medium: boolean;
  readonly readOnly: boolean;
  readonly contents: readonly ContentView[];
}

export interface InterfaceView {
  readonly name: string;
  readonly mac: string;
  /** A cable is in and the other end is up. */
  readonly carrier: boolean;
  /** IPv4 with prefix length, that it has now. */
  readonly addresses: readonly string[];
}

export type InstallerPhase =
  /** Looks for answers. */
  | { readonly kind: "waiting" }
  /** The last answers were not used; looks for others. */
  | { readonly kind: "refused"; readonly message: string }
  | {
      readonly kind: "installing";
      readonly percent: number;
      readonly step: string;
      readonly leftMs: number | null;
    }
  | {
      readonly kind: "done";
      readonly name: string;
      readonly after: "reboot" | "poweroff";
      readonly tookMs: number;
      /** Made up by the installer because the answers had none: shown this once. */
      readonly password: string | null;
    };

export interface InstallerView {
  /** Grows with each change; for `GET /v1/view?after=`. */
  readonly sequence: number;
  readonly version: string;
  readonly developmentKey: boolean;
  readonly addresses: readonly string[];
  readonly interfaces: readonly InterfaceView[];
  readonly disks: readonly DiskView[];
  readonly diskFault: string | null;
  readonly minimumDiskBytes: number;
  /** The first look at disks and answer media is over. */
  readonly ready: boolean;
  /** A person answers at the console: media are not looked at. */
  readonly attended: boolean;
  readonly phase: InstallerPhase;
  /** The last lines said, oldest first, with their number since the start. */
  readonly lines: readonly { readonly number: number; readonly text: string }[];
}

/** What an installation by some answers would do. */
export type PlanView =
  | { readonly ok: true; readonly erases: readonly string[]; readonly keeps: readonly string[] }
  | { readonly ok: false; readonly reason: string };

export interface Probe {
  /** `Gateway 192.0.2.1`. */
  readonly what: string;
  readonly ok: boolean;
  /** `answers`, or why not. */
  readonly result: string;
}

/** A file system that a file can be saved on. */
export interface MediumView {
  readonly device: string;
  readonly label: string;
  readonly sizeBytes: number;
}

export const answersBody = z.strictObject({ text: z.string().max(256 * 1024) });
export const attendedBody = z.strictObject({ attended: z.boolean() });
export const saveBody = z.strictObject({
  device: z.string().regex(/^\/dev\/[\w/-]+$/),
  text: z.string().max(256 * 1024),
});
export const powerBody = z.strictObject({ action: z.enum(["reboot", "poweroff"]) });
export const viewQuery = z.object({ after: z.coerce.number().int().optional() });
