/**
 * The boot programs that netboot hands out, and which machine gets which. Only the names below are
 * ever served; each is read once, at start, so that no request reaches the file system.
 */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { architecture, type PxeClient } from "#lib/wire/dhcp/pxe.ts";

/** Debian's `ipxe` package. The first that is there is taken. */
const candidates: Readonly<Record<number, readonly string[]>> = {
  [architecture.bios]: ["undionly.kpxe"],
  // snponly drives the NIC through the firmware that just loaded it; ipxe.efi brings drivers.
  [architecture.uefiX64Bc]: ["snponly.efi", "ipxe.efi"],
  [architecture.uefiX64]: ["snponly.efi", "ipxe.efi"],
  [architecture.httpX64]: ["snponly.efi", "ipxe.efi"],
};

const maxLoaderBytes = 16 * 2 ** 20;

export type Loaders = ReadonlyMap<string, Uint8Array>;

/** Reads the known loaders of `folder`; what isn't there, or is too large, is left out. */
export function readLoaders(folder: string): Loaders {
  const found = new Map<string, Uint8Array>();
  for (const name of new Set(Object.values(candidates).flat())) {
    const path = join(folder, name);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat?.isFile() && stat.size > 0 && stat.size <= maxLoaderBytes) {
      found.set(name, readFileSync(path));
    }
  }
  return found;
}

/** The loader for `arch`, or undefined if there is none for it here. */
export function loaderFor(loaders: Loaders, arch: number): string | undefined {
  return candidates[arch]?.find((name) => loaders.has(name));
}

/** Loaders without which some architecture can't boot. */
export function missingLoaders(loaders: Loaders): string[] {
  const missing = Object.values(candidates).filter(
    (names) => !names.some((name) => loaders.has(name)),
  );
  return [...new Set(missing.map((names) => names.join(" or ")))];
}

/** The file that a request for `path` means: a plain name, with or without leading slashes. */
export function loaderNamed(loaders: Loaders, path: string): string | undefined {
  const name = path.replace(/^[/\\]+/, "");
  return loaders.has(name) ? name : undefined;
}

export interface BootTarget {
  /** This node's address on the client's segment. */
  readonly address: string;
  readonly httpPort: number;
}

export interface BootFile {
  readonly file: string;
  readonly vendor: "PXEClient" | "HTTPClient";
  readonly kind: "loader" | "script";
}

/** What `client` is to load next; undefined if there is nothing for its architecture. */
export function bootFileFor(
  client: PxeClient,
  mac: string,
  loaders: Loaders,
  target: BootTarget,
): BootFile | undefined {
  const base = `http://${target.address}${target.httpPort === 80 ? "" : `:${target.httpPort}`}`;
  if (client.ipxe) {
    const uuid = client.uuid === undefined ? "" : `&uuid=${client.uuid}`;
    const file = `${base}/boot.ipxe?mac=${mac}${uuid}&arch=${client.arch}`;
    return { file, vendor: "PXEClient", kind: "script" };
  }
  const name = loaderFor(loaders, client.arch);
  if (name === undefined) return undefined;
  const file = client.vendor === "HTTPClient" ? `${base}/loader/${name}` : name;
  return { file, vendor: client.vendor, kind: "loader" };
}
