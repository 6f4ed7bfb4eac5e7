/** ui/ -> static files that api serves: index.html, hashed assets, each text also as .gz. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { type BundledFile, collectLicences } from "./bundle-services.ts";

const projectRoot = resolve(import.meta.dirname, "..");

export interface BundleConsoleOptions {
  readonly outDir: string;
  readonly root?: string;
  /** Readable output for development. */
  readonly minify?: boolean;
}

/** Files copied as they are, under their own name. */
const plainFiles = ["icon.svg"];

/**
 * Builds the console into `outDir`; asset names carry a hash of their content. A file that is right
 * already isn't touched and a new one appears whole, so that a running api can serve the folder.
 */
export async function bundleConsole(options: BundleConsoleOptions): Promise<BundledFile[]> {
  const root = options.root ?? projectRoot;
  const { outDir, minify = true } = options;
  const result = await build({
    absWorkingDir: root,
    entryPoints: { app: "ui/main.tsx", style: "ui/style/main.css" },
    // Names no real folder: paths in the output may not depend on where it is written.
    outdir: join(root, "build/ui/assets"),
    write: false,
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    splitting: true,
    bundle: true,
    platform: "browser",
    format: "esm",
    target: ["chrome117", "firefox121", "safari17.4"],
    charset: "utf8",
    loader: { ".woff2": "file" },
    minify,
    legalComments: "none",
    sourcemap: false,
    metafile: true,
    logLevel: "silent",
  });
  const files = new Map<string, Uint8Array>();
  for (const output of result.outputFiles) {
    files.set(`assets/${basename(output.path)}`, output.contents);
  }
  const asset = (pattern: RegExp) =>
    `/${[...files.keys()].find((name) => pattern.test(basename(name)))}`;
  const html = readFileSync(join(root, "ui/index.html"), "utf8")
    .replace("/assets/app.js", asset(/^app-.*\.js$/))
    .replace("/assets/style.css", asset(/^style-.*\.css$/))
    .replace("/assets/font.woff2", asset(/^inter-latin-wght-normal-.*\.woff2$/));
  files.set("index.html", Buffer.from(html));
  for (const name of plainFiles) files.set(name, readFileSync(join(root, "ui", name)));
  const packages = Object.keys(result.metafile.inputs)
    .map((input) => /(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1])
    .filter((name) => name !== undefined);
  files.set("licenses.txt", Buffer.from(collectLicences(root, new Set(packages))));
  for (const [name, content] of [...files]) {
    // Level 9 of a fixed zlib with no file time: the same bits each time.
    if (/\.(html|js|css|svg|txt)$/.test(name))
      files.set(`${name}.gz`, gzipSync(content, { level: 9 }));
  }
  mkdirSync(join(outDir, "assets"), { recursive: true });
  // The page last: what it names is there before it.
  const names = [...files.keys()].sort(
    (a, b) => Number(/^index/.test(a)) - Number(/^index/.test(b)),
  );
  for (const name of names) writeWhole(join(outDir, name), files.get(name)!);
  return [...files]
    .map(([name, { length }]) => ({ path: join(outDir, name), sizeBytes: length }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

function writeWhole(path: string, content: Uint8Array): void {
  if (existsSync(path) && readFileSync(path).equals(content)) return;
  const next = `${path}.${process.pid}.new`;
  writeFileSync(next, content);
  renameSync(next, path);
}

/** Short digest of all output files, for tests of determinism. */
export function digestOf(files: readonly BundledFile[]): string {
  const hash = createHash("sha256");
  for (const { path } of files) hash.update(basename(path)).update(readFileSync(path));
  return hash.digest("hex");
}
