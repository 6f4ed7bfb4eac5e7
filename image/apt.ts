/**
 * The machine's own APT mirror, asked about Debian 13 from a state directory of our own: nothing
 * of the machine's package state is read or changed, its proxies and mirror are kept.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import { runCommand } from "./command.ts";
import type { LockedPackage } from "./lock.ts";
import { architecture, components, suite } from "./packages.ts";

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

export interface Mirror {
  /** Main archive, without a slash at its end. */
  readonly archive: string;
  /** Security archive, if the machine uses one. */
  readonly security: string | undefined;
}

/**
 * The Debian mirror that this machine's sources name. KEELSON_MIRROR and KEELSON_MIRROR_SECURITY
 * override it (a dated mirror, for a release build).
 */
export function machineMirror(environment: NodeJS.ProcessEnv = process.env): Mirror {
  const override = environment.KEELSON_MIRROR;
  if (override !== undefined && override !== "") {
    return {
      archive: override.replace(/\/$/, ""),
      security: environment.KEELSON_MIRROR_SECURITY?.replace(/\/$/, ""),
    };
  }
  const targets = runCommand("apt-get", ["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]);
  const mirror = mirrorOfTargets(targets);
  if (mirror === undefined) {
    throw new KeelsonError("NOT_FOUND", "This machine's APT sources name no Debian archive.", {
      remedy: "Set KEELSON_MIRROR to the address of a Debian mirror.",
    });
  }
  return mirror;
}

/** Lines of `URI release`, as `apt-get indextargets` prints them. */
export function mirrorOfTargets(targets: string): Mirror | undefined {
  const rows = targets
    .split("\n")
    .map((line) => line.trim().split(" "))
    .filter((row) => row.length === 2 && row[0] !== "");
  const uriOf = (pattern: RegExp) =>
    rows.find(([, release]) => pattern.test(release))?.[0].replace(/\/$/, "");
  const release = "(stable|oldstable|bookworm|trixie|forky)";
  const archive = uriOf(new RegExp(`^${release}$`));
  if (archive === undefined) return undefined;
  return { archive, security: uriOf(new RegExp(`^${release}-security(/|$)`)) };
}

/** Lines for a sources.list of Debian 13 on that mirror. */
export function sourcesList(mirror: Mirror): string[] {
  const line = (uri: string, release: string) =>
    `deb [signed-by=${keyring}] ${uri} ${release} ${components.join(" ")}`;
  return [
    line(mirror.archive, suite),
    line(mirror.archive, `${suite}-updates`),
    ...(mirror.security === undefined ? [] : [line(mirror.security, `${suite}-security`)]),
  ];
}

export interface AvailablePackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly sha256: string;
}

/** One view of the mirror; `update` must run before the questions. */
export class Apt {
  readonly #folder: string;
  #updated = false;

  constructor(folder: string) {
    this.#folder = folder;
  }

  #options(): string[] {
    const at = (...names: string[]) => join(this.#folder, ...names);
    const option = (name: string, value: string) => ["-o", `${name}=${value}`];
    return [
      ...option("Dir", this.#folder),
      ...option("Dir::State", at("state")),
      ...option("Dir::State::status", at("status")),
      ...option("Dir::Cache", at("cache")),
      ...option("Dir::Etc::SourceList", at("sources.list")),
      ...option("Dir::Etc::SourceParts", "/dev/null"),
      ...option("APT::Architecture", architecture),
      ...option("APT::Architectures", architecture),
      ...option("APT::Sandbox::User", "root"),
      ...option("APT::Install-Recommends", "false"),
      ...option("Acquire::Languages", "none"),
      // Else APT counts itself among the essential packages.
      ...option("pkgCacheGen::ForceEssential", ","),
    ];
  }

  #apt(program: "apt-get" | "apt-cache", args: string[], cwd?: string): string {
    return runCommand(program, [...this.#options(), ...args], cwd === undefined ? {} : { cwd });
  }

  update(mirror: Mirror): void {
    if (this.#updated) return;
    for (const name of ["state/lists/partial", "cache/archives/partial", "etc/apt/preferences.d"]) {
      mkdirSync(join(this.#folder, name), { recursive: true });
    }
    if (!existsSync(join(this.#folder, "status"))) {
      writeFileSync(join(this.#folder, "status"), "");
    }
    writeFileSync(join(this.#folder, "sources.list"), `${sourcesList(mirror).join("\n")}\n`);
    this.#apt("apt-get", ["update", "-qq"]);
    this.#updated = true;
  }

  /** Every version of these packages that the mirror has now. */
  versions(names: readonly string[]): AvailablePackage[] {
    if (names.length === 0) return [];
    const known = new Set(this.#apt("apt-cache", ["pkgnames"]).split("\n"));
    const asked = names.filter((name) => known.has(name));
    if (asked.length === 0) return [];
    return parseStanzas(this.#apt("apt-cache", ["show", "--all-versions", ...asked])).map(
      (stanza) => ({
        name: stanza.Package,
        version: stanza.Version,
        architecture: stanza.Architecture,
        sha256: stanza.SHA256,
      }),
    );
  }

  /** What installing these and all essential packages brings, at the mirror's current versions. */
  resolve(names: readonly string[]): AvailablePackage[] {
    const lines = this.#apt("apt-get", ["install", "--print-uris", "-qq", "?essential", ...names])
      .split("\n")
      .filter((line) => line.startsWith("'"));
    const wanted = lines.map((line) => parseDebName(line.split(" ")[1]));
    const available = this.versions(wanted.map(({ name }) => name));
    return wanted.map((item) => {
      const found = available.find(
        ({ name, version }) => name === item.name && version === item.version,
      );
      if (found === undefined) {
        throw new KeelsonError(
          "NOT_FOUND",
          `The mirror's index lacks ${item.name} ${item.version}.`,
        );
      }
      return found;
    });
  }

  /** Fetches these exact versions into `folder`; APT checks them against the signed index. */
  download(packages: readonly LockedPackage[], folder: string): void {
    if (packages.length === 0) return;
    const wanted = packages.map(({ name, version }) => `${name}=${version}`);
    this.#apt("apt-get", ["download", "-q", ...wanted], folder);
  }
}

/** `name_version_arch.deb`, the version with its colon escaped as %3a. */
export function parseDebName(file: string): { name: string; version: string } {
  const [name, version] = file.split("_");
  return { name, version: decodeURIComponent(version) };
}

/** Fields of Debian control stanzas; continuation lines are dropped. */
export function parseStanzas(text: string): Record<string, string>[] {
  return text
    .split(/\n\s*\n/)
    .filter((stanza) => stanza.trim() !== "")
    .map((stanza) =>
      Object.fromEntries(
        stanza
          .split("\n")
          .filter((line) => /^[A-Za-z]/.test(line))
          .map((line) => [
            line.slice(0, line.indexOf(":")),
            line.slice(line.indexOf(":") + 1).trim(),
          ]),
      ),
    );
}
