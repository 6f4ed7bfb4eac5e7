/** The image's bill of materials: SPDX 2.3, from the packages installed and what is bundled. */
import { createHash } from "node:crypto";
import type { LockedPackage } from "./lock.ts";

export interface NpmPackage {
  readonly name: string;
  readonly version: string;
  readonly license: string | undefined;
  readonly integrity: string | undefined;
}

interface LockEntry {
  readonly version?: string;
  readonly license?: string;
  readonly integrity?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
}

/** Packages of package-lock.json that can reach the image: the runtime ones, and Node itself. */
export function shippedNpmPackages(packageLock: string): NpmPackage[] {
  const { packages } = JSON.parse(packageLock) as { packages: Record<string, LockEntry> };
  return Object.entries(packages)
    .filter(([path, { dev }]) => path !== "" && dev !== true)
    .map(([path, { version = "", license, integrity }]) => ({
      name: path.replace(/^.*node_modules\//, ""),
      version,
      license,
      integrity,
    }))
    .filter(({ name }) => !/^node-linux-(?!x64$)/.test(name))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

export function spdxDocument(inputs: {
  readonly version: string;
  readonly epoch: number;
  readonly debian: readonly LockedPackage[];
  readonly npm: readonly NpmPackage[];
}): string {
  const identifier = (kind: string, name: string) =>
    `SPDXRef-${kind}-${name.replaceAll(/[^A-Za-z0-9.-]/g, "-")}`;
  const reference = (locator: string) => [
    { referenceCategory: "PACKAGE-MANAGER", referenceType: "purl", referenceLocator: locator },
  ];
  const debian = [...inputs.debian]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((item) => ({
      SPDXID: identifier("deb", item.name),
      name: item.name,
      versionInfo: item.version,
      downloadLocation: "NOASSERTION",
      filesAnalyzed: false,
      licenseConcluded: "NOASSERTION",
      // The text is in the image: /usr/share/doc/<name>/copyright.
      licenseDeclared: "NOASSERTION",
      copyrightText: "NOASSERTION",
      checksums: [{ algorithm: "SHA256", checksumValue: item.sha256 }],
      externalRefs: reference(
        `pkg:deb/debian/${item.name}@${encodeURIComponent(item.version)}?arch=${item.architecture}&distro=trixie`,
      ),
    }));
  const npm = inputs.npm.map((item) => ({
    SPDXID: identifier("npm", item.name),
    name: item.name,
    versionInfo: item.version,
    downloadLocation: "NOASSERTION",
    filesAnalyzed: false,
    licenseConcluded: "NOASSERTION",
    licenseDeclared: item.license ?? "NOASSERTION",
    copyrightText: "NOASSERTION",
    ...(item.integrity?.startsWith("sha512-")
      ? {
          checksums: [
            {
              algorithm: "SHA512",
              checksumValue: Buffer.from(item.integrity.slice(7), "base64").toString("hex"),
            },
          ],
        }
      : {}),
    externalRefs: reference(
      `pkg:npm/${item.name.replace("@", "%40")}@${encodeURIComponent(item.version)}`,
    ),
  }));
  const packages = [...debian, ...npm];
  const digest = createHash("sha256").update(JSON.stringify(packages)).digest("hex");
  return `${JSON.stringify(
    {
      spdxVersion: "SPDX-2.3",
      dataLicense: "CC0-1.0",
      SPDXID: "SPDXRef-DOCUMENT",
      name: `keelson-${inputs.version}`,
      documentNamespace: `urn:keelson:sbom:${inputs.version}:${digest.slice(0, 32)}`,
      creationInfo: {
        created: new Date(inputs.epoch * 1000).toISOString().replace(/\.\d+Z$/, "Z"),
        creators: ["Tool: keelson-image"],
      },
      packages,
      relationships: packages.map(({ SPDXID }) => ({
        spdxElementId: "SPDXRef-DOCUMENT",
        relationshipType: "DESCRIBES",
        relatedSpdxElement: SPDXID,
      })),
    },
    null,
    1,
  )}\n`;
}
