import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { bundleConsole, bundleServices, serviceEntries } from "./bundle.ts";
import { digestOf } from "./bundle-console.ts";

const run = promisify(execFile);
const scratch = mkdtempSync(join(tmpdir(), "keelson-bundle-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function project(name: string, files: Record<string, string>): string {
  const root = join(scratch, name);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

describe("bundles of the services", async () => {
  const outDir = join(scratch, "services");
  const files = await bundleServices({ outDir });

  test.for(serviceEntries())("$name starts from its bundle with --help", async ({ name }) => {
    const { stdout } = await run(process.execPath, [join(outDir, `${name}.js`), "--help"], {
      cwd: scratch,
    });
    expect(stdout).toMatch(/usage/i);
  });

  test("bundling twice into different places gives the same bytes", async () => {
    const again = await bundleServices({ outDir: join(scratch, "elsewhere/services") });
    expect(again.map(({ path }) => basename(path))).toEqual(
      files.map(({ path }) => basename(path)),
    );
    expect(digestOf(again)).toBe(digestOf(files));
  });

  test("no absolute path of this machine stands in a bundle", () => {
    const root = join(import.meta.dirname, "..");
    for (const { path } of files.filter(({ path }) => path.endsWith(".js"))) {
      expect(readFileSync(path, "utf8").includes(root), path).toBe(false);
    }
  });

  test("the licence of each bundled package is there in words", () => {
    const text = readFileSync(join(outDir, "LICENSES.txt"), "utf8");
    const bundled = files
      .filter(({ path }) => path.endsWith(".js"))
      .flatMap(({ path }) => [
        ...readFileSync(path, "utf8").matchAll(/^\/\/ node_modules\/((?:@[^/\n]+\/)?[^/\n]+)\//gm),
      ])
      .map((match) => match[1]);
    for (const name of new Set(bundled)) expect(text).toContain(`\n${name} `);
  });
});

describe("what a service names beside its code", () => {
  test("a worker becomes a bundle of its own and is found from dev and bundle alike", async () => {
    const root = project("worker", {
      "services/echo/main.ts": `
        import { Worker } from "node:worker_threads";
        const worker = new Worker(new URL("./threads/loud.ts", import.meta.url));
        worker.once("message", (text: string) => console.log(text));`,
      "services/echo/threads/loud.ts": `
        import { parentPort } from "node:worker_threads";
        import { words } from "../words.ts";
        parentPort!.postMessage(words.toUpperCase());`,
      "services/echo/words.ts": `export const words: string = "hello";`,
      "package.json": `{ "type": "module" }`,
    });
    const outDir = join(root, "build");
    const files = await bundleServices({ root, outDir });
    expect(files.map(({ path }) => basename(path))).toEqual([
      "LICENSES.txt",
      "echo.js",
      "echo.loud.js",
      "package.json",
    ]);
    const bundled = await run(process.execPath, [join(outDir, "echo.js")]);
    const source = await run(process.execPath, [join(root, "services/echo/main.ts")]);
    expect(bundled.stdout).toBe("HELLO\n");
    expect(source.stdout).toBe("HELLO\n");
  });

  test("a file is copied beside; one that isn't built is left to the fall-back", async () => {
    const root = project("addon", {
      "services/with/main.ts": `console.log(new URL("../../build/x.node", import.meta.url).pathname);`,
      "services/without/main.ts": `console.log(new URL("../../build/y.node", import.meta.url).pathname);`,
      "build/x.node": "binary",
    });
    const outDir = join(root, "out");
    await bundleServices({ root, outDir });
    const { stdout } = await run(process.execPath, [join(outDir, "with.js")]);
    expect(readFileSync(stdout.trim(), "utf8")).toBe("binary");
    expect(existsSync(join(outDir, "y.node"))).toBe(false);
  });

  test.for([
    "console.log(import.meta.dirname);",
    "console.log(import.meta.filename);",
    "new Worker(new URL(import.meta.url));",
    "new Worker('./thread.js');",
  ])("%s is refused, with the file's name", async (line) => {
    const root = project("refused", { "services/bad/main.ts": line });
    await expect(bundleServices({ root, outDir: join(root, "out") })).rejects.toThrow(
      /services\/bad\/main\.ts/,
    );
  });

  test("an unknown service is named with those that exist", async () => {
    const root = project("one", { "services/one/main.ts": "" });
    await expect(
      bundleServices({ root, outDir: join(root, "out"), names: ["two"] }),
    ).rejects.toMatchObject({ code: "NOT_FOUND", remedy: "There are: one." });
  });
});

/** URLs that nothing fetches: names of namespaces, examples in hints, a library's error messages. */
const onlyText =
  /^https?:\/\/(?:www\.w3\.org\/|[\w.]+\.example\.org\b|simplewebauthn\.dev\/docs\/)/;

describe("bundle of the console", async () => {
  const outDir = join(scratch, "ui");
  const files = await bundleConsole({ outDir });
  const html = readFileSync(join(outDir, "index.html"), "utf8");

  test("every file that the page names is there, under a name with its hash", () => {
    const named = [...html.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map((match) => match[1]);
    expect(named.length).toBeGreaterThanOrEqual(4);
    for (const path of named) expect(existsSync(join(outDir, path)), path).toBe(true);
    const assets = named.filter((path) => path.startsWith("/assets/"));
    for (const path of assets) expect(path).toMatch(/-[A-Z0-9]{8}\.\w+$/);
  });

  test("a strict content security policy has nothing to forbid", () => {
    expect(html).not.toMatch(/<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=/i);
    for (const { path } of files.filter(({ path }) => /\.(js|css|html)$/.test(path))) {
      const text = readFileSync(path, "utf8");
      expect(text, path).not.toMatch(/\beval\(|new Function\(/);
      const outside = [...text.matchAll(/https?:\/\/[^\s"'`)]+/g)]
        .map((match) => match[0])
        .filter((url) => !onlyText.test(url));
      expect(outside, path).toEqual([]);
    }
  });

  test("each text has a compressed twin with the same content", () => {
    const texts = files.filter(({ path }) => /\.(html|js|css|svg|txt)$/.test(path));
    expect(texts.length).toBeGreaterThanOrEqual(4);
    for (const { path } of texts) {
      expect(gunzipSync(readFileSync(`${path}.gz`)).equals(readFileSync(path)), path).toBe(true);
    }
  });

  test("it stays small: all script and style under 120 kB on the wire", () => {
    const sent = files.filter(({ path }) => /\.(js|css)\.gz$/.test(path));
    expect(sent.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)).toBeLessThan(120_000);
  });

  test("bundling twice gives the same bytes", async () => {
    const again = await bundleConsole({ outDir: join(scratch, "elsewhere/ui") });
    expect(digestOf(again)).toBe(digestOf(files));
  });
});
