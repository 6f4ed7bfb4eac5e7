/** `npm run image`. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { build } from "./build.ts";
import { projectRoot } from "./chroot.ts";
import { parseLock } from "./lock.ts";
import { checkReproducible } from "./reproducible.ts";
import { updateLock } from "./update-lock.ts";

const help = `Usage: npm run image -- [options]

Builds build/keelson.iso and build/image/ from image/packages.lock and this checkout. Needs root.

  --out DIR              where to; default build
  --release              refuse to build with other packages than the locked ones
  --check-reproducible   build twice, each time as another machine would, and compare every byte
  --update-lock          write packages.lock anew from what the mirror has now; builds nothing
  --fresh                take nothing from the cache but the tools and the .debs
  --json                 one JSON line on stdout at the end
  --help                 this text

KEELSON_MIRROR, KEELSON_MIRROR_SECURITY: another Debian mirror than the machine's own.`;

function readArguments() {
  try {
    return parseArgs({
      options: {
        out: { type: "string", default: join(projectRoot, "build") },
        release: { type: "boolean", default: false },
        "check-reproducible": { type: "boolean", default: false },
        "update-lock": { type: "boolean", default: false },
        fresh: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (cause) {
    throw new KeelsonError("INVALID_ARGUMENT", `${(cause as Error).message}.`, {
      remedy: "See --help.",
      cause,
    });
  }
}

function main(): void {
  const values = readArguments();
  const cache = join(projectRoot, ".cache");
  if (values.help) {
    console.log(help);
    return;
  }
  const out = resolve(values.out);
  if (values["update-lock"]) {
    const path = join(projectRoot, "image/packages.lock");
    const previous = existsSync(path) ? parseLock(readFileSync(path, "utf8")) : undefined;
    const lock = updateLock(path, cache, previous);
    if (values.json) console.log(JSON.stringify({ lock: path, root: lock.root.length }));
    return;
  }
  if (values["check-reproducible"]) {
    const result = checkReproducible({ project: projectRoot, cache, out, release: values.release });
    if (values.json) console.log(JSON.stringify(result));
    if (result.differences.length > 0) process.exit(1);
    return;
  }
  const result = build({
    project: projectRoot,
    cache,
    out,
    release: values.release,
    fresh: values.fresh,
    env: {},
  });
  const { isoBytes, description, seconds } = result;
  console.error(
    `image: ${result.iso}, ${(isoBytes / 1e6).toFixed(1)} MB, Keelson ${description.version}, ${seconds} s`,
  );
  if (description.developmentKey) {
    console.error("image: development build: no release key signed it.");
  }
  if (values.json) console.log(JSON.stringify(result));
}

try {
  main();
} catch (error) {
  console.error(`image: ${explainError(error)}`);
  if (!isKeelsonError(error)) console.error(error);
  process.exit(1);
}
