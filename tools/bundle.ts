/**
 * Bundles for the image: one ESM file a service; what it loads later, its workers and the addon
 * beside it; and the web console as static files. Output depends on the sources alone (docs/decisions/0060).
 */
import { mkdirSync, rmSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { formatSize } from "#lib/model/size.ts";
import { bundleConsole } from "./bundle-console.ts";
import { bundleServices } from "./bundle-services.ts";

export { bundleConsole } from "./bundle-console.ts";
export { bundleServices, serviceEntries } from "./bundle-services.ts";

const help = `Usage: node tools/bundle.ts [--services] [--ui] [--out DIR]

Bundles every services/*/main.ts and cli/main.ts into DIR/services/<name>.js and the web console
into DIR/ui. Without --services and --ui: both.
  --services  only the services and the command-line client
  --ui        only the web console
  --out DIR   where to; default build
  --help      this text`;

async function main(): Promise<void> {
  const { values } = readArguments();
  if (values.help) {
    console.log(help);
    return;
  }
  const both = !values.services && !values.ui;
  const root = resolve(import.meta.dirname, "..");
  const out = resolve(values.out ?? join(root, "build"));
  if (both || values.services) {
    const outDir = emptyFolder(join(out, "services"));
    for (const { path, sizeBytes } of await bundleServices({ outDir })) {
      console.log(`${relative(process.cwd(), path)}  ${formatSize(sizeBytes)}`);
    }
  }
  if (both || values.ui) {
    const outDir = emptyFolder(join(out, "ui"));
    for (const { path, sizeBytes } of await bundleConsole({ outDir })) {
      console.log(`${relative(process.cwd(), path)}  ${formatSize(sizeBytes)}`);
    }
  }
}

function readArguments() {
  try {
    return parseArgs({
      options: {
        services: { type: "boolean", default: false },
        ui: { type: "boolean", default: false },
        out: { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
  } catch (cause) {
    throw new KeelsonError("INVALID_ARGUMENT", `${(cause as Error).message}.`, {
      remedy: "See --help.",
      cause,
    });
  }
}

/** Old bundles go first, so that a removed service doesn't stay in the image. */
function emptyFolder(path: string): string {
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path, { recursive: true });
  return path;
}

if (import.meta.main) {
  main().catch((error: unknown) => {
    console.error(`bundle: ${explainError(error)}`);
    process.exit(1);
  });
}
