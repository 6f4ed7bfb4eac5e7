/**
 * Releases that are bad on purpose, one kind of badness each, for the scenarios in which a node has
 * to come back by itself. They are signed as any other development bundle: what is wrong with them
 * shows only when they run.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { ImageMutation } from "#image/artefacts.ts";

export const brokenKinds = [
  "kernel-panics",
  "initrd-hangs",
  "root-fails-verity",
  "service-crash-loops",
  "api-answers-500",
  "network-stays-down",
  "health-gate-hangs",
] as const;
export type BrokenKind = (typeof brokenKinds)[number];

const services = "usr/lib/keelson/services";

export const mutations: Readonly<Record<BrokenKind, ImageMutation>> = {
  // No init in the initrd: the kernel looks for a root by itself, finds none, and panics.
  "kernel-panics": { kernelLine: (line) => `${line} rdinit=/no-such-init` },
  "initrd-hangs": {
    kernelLine: (line) => line.replace(/initrd_deadline=\d+/, "initrd_deadline=120"),
    initrd: {
      "usr/lib/keelson/keelson-var": "#!/bin/sh\nexec sleep 1000000\n",
      "usr/lib/systemd/system/keelson-var.service.d/50-broken.conf":
        "[Service]\nTimeoutStartSec=infinity\n",
    },
  },
  // The first block, which every mount reads. Whoever reads back what was written finds it too.
  "root-fails-verity": { rootImage: (path) => flipByte(path, 1024) },
  // It comes up, says that it is ready, and dies, again and again.
  "service-crash-loops": {
    root: (tree) => prepend(join(tree, services, "iscsi-target.js"), crashAfter(20)),
  },
  "api-answers-500": { root: (tree) => prepend(join(tree, services, "api.js"), answer500) },
  "network-stays-down": {
    root: (tree) => mask(tree, ["systemd-networkd.service", "systemd-networkd.socket"]),
  },
  // What judges the new version never comes to it: only the deadline unit can end this.
  "health-gate-hangs": {
    root: (tree) => prepend(join(tree, services, "firmware-updater.js"), neverStart),
  },
};

/** The image build asks every program for its --help, and gets it. */
const neverStart = `if (!process.argv.includes("--help")) {
  await new Promise(() => setInterval(() => {}, 1_000_000));
}`;

function crashAfter(seconds: number): string {
  return `setTimeout(() => process.exit(1), ${seconds * 1000});`;
}

/** Every server of the process, HTTP/1 and 2, emits "request" for each. */
const answer500 = `import { EventEmitter as BrokenEmitter } from "node:events";
const emitUnbroken = BrokenEmitter.prototype.emit;
BrokenEmitter.prototype.emit = function (name, ...values) {
  if (name !== "request" || typeof values[1]?.writeHead !== "function") {
    return emitUnbroken.call(this, name, ...values);
  }
  values[1].writeHead(500, { "content-type": "text/plain" });
  values[1].end("broken on purpose\\n");
  return true;
};`;

function prepend(path: string, code: string): void {
  const lines = readFileSync(path, "utf8").split("\n");
  const at = lines[0].startsWith("#!") ? 1 : 0;
  lines.splice(at, 0, code);
  replace(path, lines.join("\n"), 0o644);
}

/** A new file: the tree's own may be a link to one that other builds use. */
function replace(path: string, text: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { force: true });
  writeFileSync(path, text, { mode });
}

function mask(tree: string, units: readonly string[]): void {
  for (const unit of units) {
    const path = join(tree, "etc/systemd/system", unit);
    rmSync(path, { force: true });
    symlinkSync("/dev/null", path);
  }
}

function flipByte(path: string, offset: number): void {
  const file = openSync(path, "r+");
  try {
    const byte = Buffer.alloc(1);
    readSync(file, byte, 0, 1, offset);
    writeSync(file, Buffer.from([byte[0] ^ 0xff]), 0, 1, offset);
  } finally {
    closeSync(file);
  }
}
