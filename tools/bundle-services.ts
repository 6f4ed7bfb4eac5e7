/** services/*\/main.ts, firmware-updater/main.ts and cli/main.ts -> one ESM file each; what it loads later, workers and addon beside it. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { build, type Metafile, type Plugin } from "esbuild";
import { KeelsonError } from "#lib/model/errors.ts";

const projectRoot = resolve(import.meta.dirname, "..");

export interface BundledFile {
  readonly path: string;
  readonly sizeBytes: number;
}

export interface ServiceEntry {
  /** `chunk-store`; `keelson` is the command-line client. */
  readonly name: string;
  readonly source: string;
}

export interface BundleServicesOptions {
  readonly outDir: string;
  /** Only these, by name; default all. */
  readonly names?: readonly string[];
  readonly root?: string;
}

/** What there is to bundle, by name. */
export function serviceEntries(root = projectRoot): ServiceEntry[] {
  const folders = existsSync(join(root, "services")) ? readdirSync(join(root, "services")) : [];
  const entries = folders.map((name) => ({
    name,
    source: join(root, "services", name, "main.ts"),
  }));
  entries.push({ name: "firmware-updater", source: join(root, "firmware-updater/main.ts") });
  entries.push({ name: "keelson", source: join(root, "cli/main.ts") });
  return entries
    .filter(({ source }) => existsSync(source))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * Bundles services into `outDir` and returns every file written. Throws INVALID_ARGUMENT for what
 * would work in development and break in a bundle.
 */
export async function bundleServices(options: BundleServicesOptions): Promise<BundledFile[]> {
  const root = options.root ?? projectRoot;
  const { outDir } = options;
  mkdirSync(outDir, { recursive: true });
  const wanted = serviceEntries(root).filter(
    ({ name }) => options.names === undefined || options.names.includes(name),
  );
  const missing = options.names?.filter((name) => !wanted.some((entry) => entry.name === name));
  if (missing !== undefined && missing.length > 0) {
    throw new KeelsonError("NOT_FOUND", `There is no service '${missing.join("', '")}'.`, {
      operation: "bundle",
      remedy: `There are: ${serviceEntries(root)
        .map(({ name }) => name)
        .join(", ")}.`,
    });
  }
  const written = new Set<string>();
  const packages = new Set<string>();
  for (const { name, source } of wanted) {
    await bundleEntry(
      { root, outDir, service: name, source, output: `${name}.js` },
      written,
      packages,
    );
  }
  writeFileSync(join(outDir, "package.json"), '{ "type": "module" }\n');
  writeFileSync(join(outDir, "LICENSES.txt"), collectLicences(root, packages));
  written.add("package.json").add("LICENSES.txt");
  return [...written].sort().map((name) => {
    const path = join(outDir, name);
    return { path, sizeBytes: statSync(path).size };
  });
}

interface Entry {
  readonly root: string;
  readonly outDir: string;
  readonly service: string;
  readonly source: string;
  readonly output: string;
}

async function bundleEntry(
  entry: Entry,
  written: Set<string>,
  packages: Set<string>,
): Promise<void> {
  const { root, outDir, service, source, output } = entry;
  const workers = new Map<string, string>();
  const result = await build({
    absWorkingDir: root,
    entryPoints: [relative(root, source)],
    outdir: outDir,
    entryNames: basename(output, ".js"),
    bundle: true,
    // What is imported when it is needed becomes a file of its own, which a start doesn't parse.
    splitting: true,
    chunkNames: `${basename(output, ".js")}.[name]-[hash]`,
    platform: "node",
    format: "esm",
    target: "node26",
    // In memory a text with one character beyond Latin-1 takes two bytes for each.
    charset: "ascii",
    legalComments: "none",
    sourcemap: false,
    metafile: true,
    logLevel: "silent",
    // Packages in CommonJS call require() for Node's modules; an ESM file has none of its own.
    banner: {
      js: 'import { createRequire as createBundleRequire } from "node:module"; const require = createBundleRequire(import.meta.url);',
    },
    plugins: [englishOnly, filesBeside({ service, outDir, workers, written })],
  }).catch((cause: Error) => {
    throw new KeelsonError(
      "INVALID_ARGUMENT",
      `Cannot bundle ${relative(root, source)}: ${cause.message}`,
      {
        operation: "bundle",
        object: service,
        cause,
      },
    );
  });
  for (const path of Object.keys(result.metafile.outputs)) written.add(basename(path));
  for (const name of packagesOf(result.metafile)) packages.add(name);
  for (const [workerSource, workerOutput] of workers) {
    if (written.has(workerOutput)) continue;
    await bundleEntry({ ...entry, source: workerSource, output: workerOutput }, written, packages);
  }
}

/** zod brings its messages in fifty languages, a third of its code, which each start would parse. */
const englishOnly: Plugin = {
  name: "english-only",
  setup(builder) {
    builder.onResolve({ filter: /\/locales\/index\.js$/ }, ({ path, resolveDir, importer }) =>
      importer.includes("/node_modules/zod/")
        ? { path: resolve(resolveDir, path, "../en.js") }
        : undefined,
    );
  },
};

const besidePattern = /new URL\(\s*(["'])(\.[^"']+)\1\s*,\s*import\.meta\.url\s*,?\s*\)/g;

/** Rewrites `new URL("./file", import.meta.url)`: workers become entries, the rest is copied. */
function filesBeside(context: {
  service: string;
  outDir: string;
  workers: Map<string, string>;
  written: Set<string>;
}): Plugin {
  return {
    name: "files-beside",
    setup(builder) {
      builder.onLoad({ filter: /\.tsx?$/ }, ({ path }) => {
        if (path.includes("/node_modules/")) return undefined;
        const text = readFileSync(path, "utf8");
        refuseUnbundlable(path, text);
        const contents = text.replaceAll(besidePattern, (_match, _quote, specifier: string) => {
          const target = resolve(dirname(path), specifier);
          const name = /\.ts$/.test(target) ? worker(target) : copy(target);
          return `new URL("./${name}", import.meta.url)`;
        });
        return { contents, loader: path.endsWith("x") ? "tsx" : "ts" };
      });
      const worker = (target: string): string => {
        const name = `${context.service}.${basename(target, ".ts")}.js`;
        context.workers.set(target, name);
        return name;
      };
      // A file that isn't built (the addon on a machine without a compiler) is left out: whoever
      // names it has its fall-back.
      const copy = (target: string): string => {
        const name = basename(target);
        if (existsSync(target) && statSync(target).isFile()) {
          copyFileSync(target, join(context.outDir, name));
          context.written.add(name);
        }
        return name;
      };
    },
  };
}

/** Code that runs in development and would silently look elsewhere in a bundle. */
function refuseUnbundlable(path: string, text: string): void {
  const code = text.replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
  const found = /import\.meta\.(dirname|filename)\b/.exec(code) ?? badWorker(code);
  if (found === null) return;
  throw new KeelsonError(
    "INVALID_ARGUMENT",
    `${path} uses ${found[0]}, which differs in a bundle.`,
    {
      operation: "bundle",
      object: path,
      remedy: 'Name the file as new URL("./file.ts", import.meta.url): docs/decisions/0060.',
    },
  );
}

/** A URL made elsewhere by the literal form is fine: `new Worker(entry)`. */
function badWorker(code: string): RegExpExecArray | null {
  return /new Worker\(\s*(?:["'`]|new URL\(\s*(?!["']\.))[^)]{0,60}/.exec(code);
}

/** Names of the npm packages whose code went in. */
function packagesOf(metafile: Metafile): string[] {
  const names = new Set<string>();
  for (const output of Object.values(metafile.outputs)) {
    for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
      const match = /(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
      if (match !== null && bytesInOutput > 0) names.add(match[1]);
    }
  }
  return [...names];
}

/** One text of every bundled package's licence, by path; a package without a text is named too. */
export function collectLicences(root: string, packages: Iterable<string>): string {
  const parts = [...packages].sort().map((folder) => {
    const manifest = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8")) as {
      name: string;
      version: string;
      license?: string;
    };
    const file = readdirSync(join(root, folder))
      .sort()
      .find((name) => /^(licen[cs]e|copying)/i.test(name));
    const text =
      file === undefined
        ? `Licence: ${manifest.license ?? "not stated"} (the package carries no text).`
        : readFileSync(join(root, folder, file), "utf8").trim();
    return `${manifest.name} ${manifest.version} (${manifest.license ?? "not stated"})\n\n${text}\n`;
  });
  const line = `\n${"-".repeat(78)}\n\n`;
  return ["Licences of the packages bundled into this product.\n", ...parts].join(line);
}
