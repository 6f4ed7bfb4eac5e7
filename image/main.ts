/** `npm run image`. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { verifyBundle } from "#lib/bundle/file.ts";
import { readTrust } from "#lib/bundle/trust.ts";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { clockLibrary } from "./base-tree.ts";
import { build } from "./build.ts";
import { projectRoot } from "./chroot.ts";
import { report } from "./command.ts";
import { readPassphrase } from "./keys.ts";
import { parseLock } from "./lock.ts";
import { checkReproducible } from "./reproducible.ts";
import { updateLock } from "./update-lock.ts";

const help = `Usage: npm run image -- [options]

Builds build/keelson.iso and build/image/ from image/packages.lock and this checkout. Needs root.

  --bundle               make the signed upgrade bundle too, build/keelson-VERSION.kbundle
  --no-iso               only the bundle; build/keelson.iso stays as it is
  --version VERSION      another version than package.json's, e.g. 2026.12.0
  --key DIR              sign with this release key (node image/keys.ts); else a throw-away one
  --passphrase-file FILE of the release key; or KEELSON_KEY_PASSPHRASE
  --out DIR              where to; default build
  --release              refuse to build with other packages than the locked ones
  --check-reproducible   build twice, each time as another machine would, and compare every byte
  --update-lock          write packages.lock anew from what the mirror has now; builds nothing
  --fresh                take nothing from the cache but the tools and the .debs
  --keep-trees           keep the root tree and the initrd's content in DIR/trees
  --clock-offset-days N  the build's programs see a clock N days ahead
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
        "keep-trees": { type: "boolean", default: false },
        "clock-offset-days": { type: "string" },
        bundle: { type: "boolean", default: false },
        "no-iso": { type: "boolean", default: false },
        version: { type: "string" },
        key: { type: "string" },
        "passphrase-file": { type: "string" },
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

/**
 * libfaketime for every program of the tools and trees; nothing if no offset is asked. Files keep
 * the times that they have: a file touched to a fixed time would else read as another one.
 */
function falseClock(days: string | undefined): Record<string, string> {
  if (days === undefined) return {};
  if (!/^\d{1,5}$/.test(days)) {
    throw new KeelsonError("INVALID_ARGUMENT", `--clock-offset-days ${days} is not a number.`);
  }
  return {
    LD_PRELOAD: clockLibrary,
    FAKETIME: `+${days}d`,
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    // Its lock is shared by all of them: one that is killed while it holds it stops the others.
    FAKETIME_DISABLE_SHM: "1",
    NO_FAKE_STAT: "1",
  };
}

async function main(): Promise<void> {
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
    env: falseClock(values["clock-offset-days"]),
    keepTrees: values["keep-trees"],
    ...{ version: values.version, iso: !values["no-iso"] },
    bundle: values.bundle || values["no-iso"],
    keyFolder: values.key,
    passphrase: readPassphrase(values["passphrase-file"]),
  });
  const { isoBytes, bundle, description, seconds } = result;
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  if (result.iso !== undefined) report(`${result.iso}, ${megabytes(isoBytes)}`);
  if (bundle !== undefined) {
    // Read as a node reads it: what can't be installed isn't handed out.
    await verifyBundle(bundle.path, readTrust(join(out, "trust.json")));
    report(`${bundle.path}, ${megabytes(bundle.sizeBytes)}, verified`);
  }
  report(`Keelson ${description.version}, ${seconds} s`);
  if (description.developmentKey) {
    report("development build: signed by the throw-away key in .cache/keys.");
  }
  if (values.json) console.log(JSON.stringify(result));
}

try {
  await main();
} catch (error) {
  console.error(`image: ${explainError(error)}`);
  if (!isKeelsonError(error)) console.error(error);
  process.exit(1);
}
