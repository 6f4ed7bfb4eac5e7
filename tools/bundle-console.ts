/** ui/ -> static files that api serves: index.html, hashed assets, each text also as .gz. */
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
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

/** Builds the console into `outDir`; asset names carry a hash of their content. */
export async function bundleConsole(options: BundleConsoleOptions): Promise<BundledFile[]> {
  const root = options.root ?? projectRoot;
  const { outDir, minify = true } = options;
  mkdirSync(join(outDir, "assets"), { recursive: true });
  const result = await build({
    absWorkingDir: root,
    entryPoints: { app: "ui/main.tsx", style: "ui/style/main.css" },
    outdir: join(outDir, "assets"),
    entryNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    bundle: true,
    platform: "browser",
    format: "esm",
    target: ["chrome111", "firefox121", "safari17"],
    charset: "utf8",
    loader: { ".woff2": "file" },
    minify,
    legalComments: "none",
    sourcemap: false,
    metafile: true,
    logLevel: "silent",
  });
  const outputs = Object.keys(result.metafile.outputs).map((path) => resolve(root, path));
  const written = [...outputs];
  const asset = (pattern: RegExp) => {
    const path = outputs.find((output) => pattern.test(basename(output)));
    return `/assets/${basename(path ?? "missing")}`;
  };
  const html = readFileSync(join(root, "ui/index.html"), "utf8")
    .replace("/assets/app.js", asset(/^app-.*\.js$/))
    .replace("/assets/style.css", asset(/^style-.*\.css$/))
    .replace("/assets/font.woff2", asset(/^inter-latin-wght-normal-.*\.woff2$/));
  writeFileSync(join(outDir, "index.html"), html);
  written.push(join(outDir, "index.html"));
  for (const name of plainFiles) {
    copyFileSync(join(root, "ui", name), join(outDir, name));
    written.push(join(outDir, name));
  }
  const packages = Object.keys(result.metafile.inputs)
    .map((input) => /(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1])
    .filter((name) => name !== undefined);
  writeFileSync(join(outDir, "licenses.txt"), collectLicences(root, new Set(packages)));
  written.push(join(outDir, "licenses.txt"));
  for (const path of written.filter((name) => /\.(html|js|css|svg|txt)$/.test(name))) {
    // Level 9 of a fixed zlib with no file time: the same bits each time.
    writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
    written.push(`${path}.gz`);
  }
  return written.sort().map((path) => ({ path, sizeBytes: statSync(path).size }));
}

/** Short digest of all output files, for tests of determinism. */
export function digestOf(files: readonly BundledFile[]): string {
  const hash = createHash("sha256");
  for (const { path } of files) hash.update(basename(path)).update(readFileSync(path));
  return hash.digest("hex");
}
