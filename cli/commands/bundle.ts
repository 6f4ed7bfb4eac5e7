import type { Command } from "commander";
import { type ReadOptions, type VerifiedBundle, verifyBundle } from "#lib/bundle/file.ts";
import { imageTrustPath, readTrust } from "#lib/bundle/trust.ts";
import { formatSize } from "#lib/model/size.ts";
import { action } from "../context.ts";
import { formatFacts, printable } from "../table.ts";

interface Options {
  readonly trust: string;
}

/** Commands for upgrade bundles in files; they ask no node. */
export function addBundleCommands(program: Command): void {
  const group = program
    .command("bundle")
    .description(
      "upgrade bundles in files: what is in one, whether it is whole and rightly signed",
    );
  const trust = [
    "--trust <file>",
    "whose signature counts: a node's trust.json, or image/trust/roots.json of the sources",
    imageTrustPath,
  ] as const;

  group
    .command("show")
    .description("check a bundle, then say what it is, with its release notes")
    .argument("<file>", "keelson-VERSION.kbundle")
    .option(...trust)
    .addHelpText("after", "\nExample:\n  keelson bundle show keelson-2026.12.0.kbundle")
    .action(
      action(async (context, file: string, options: Options) => {
        const bundle = await verify(file, options);
        context.print(documentOf(file, bundle), () => describe(bundle));
      }),
    );

  group
    .command("verify")
    .description("check signature and every byte of a bundle; exit code 1 if it is bad")
    .argument("<file>", "keelson-VERSION.kbundle")
    .option(...trust)
    .addHelpText("after", "\nExample:\n  keelson bundle verify keelson-2026.12.0.kbundle")
    .action(
      action(async (context, file: string, options: Options) => {
        const bundle = await verify(file, options);
        const { manifest, signer, totalBytes } = bundle;
        context.print(
          documentOf(file, bundle),
          `${file} is good: Keelson ${kindOf(manifest)}, ${formatSize(totalBytes)}, signed by ${printable(signer.name)} (${signer.keyId}).`,
        );
      }),
    );
}

/** Bytes read so far are shown on a terminal only. */
async function verify(file: string, { trust }: Options): Promise<VerifiedBundle> {
  const shows = process.stderr.isTTY === true;
  let done = 0;
  let shown = 0;
  const options: ReadOptions = {
    advance(bytes) {
      done += bytes;
      if (!shows || done - shown < 16 << 20) return;
      shown = done;
      process.stderr.write(`\r${formatSize(done)} read`);
    },
  };
  try {
    return await verifyBundle(file, readTrust(trust), undefined, options);
  } finally {
    if (shown > 0) process.stderr.write(`\r${" ".repeat(20)}\r`);
  }
}

function documentOf(file: string, { manifest, signer, totalBytes }: VerifiedBundle) {
  const { keyId, name, epoch, root } = signer;
  return {
    ...{ file, valid: true, sizeBytes: totalBytes },
    signer: { keyId, name, epoch, rootKeyId: root.keyId, rootName: root.name },
    manifest,
  };
}

function kindOf({ version, development }: VerifiedBundle["manifest"]): string {
  return `${version}${development ? " (development build)" : ""}`;
}

function describe({ manifest, signer, totalBytes }: VerifiedBundle): string {
  const { architecture, hardware, space } = manifest;
  const formats = Object.entries(manifest.dataFormats).map(
    ([name, { oldest, newest }]) => `${name} ${oldest === newest ? oldest : `${oldest}-${newest}`}`,
  );
  const facts = formatFacts([
    ["version", kindOf(manifest)],
    ["build", manifest.buildId],
    ["for", `${architecture} (${hardware.join(", ")}), from ${manifest.upgradesFrom} or newer`],
    ["reads", formats.join(", ")],
    ["size", formatSize(totalBytes)],
    ["needs", `${formatSize(space.varBytes)} on /var, ${formatSize(space.espBytes)} on the ESP`],
    ["signed by", `${signer.name} (${signer.keyId}), epoch ${signer.epoch}`],
    ["certified by", `${signer.root.name} (${signer.root.keyId})`],
  ]);
  const parts = manifest.parts.map(
    ({ name, sizeBytes }) => `  ${name.padEnd(14)}${formatSize(sizeBytes).padStart(10)}`,
  );
  const notes = manifest.notes.trimEnd().split("\n").map(printable).join("\n");
  return `${facts}\nparts\n${parts.join("\n")}\n\n${notes}`;
}
