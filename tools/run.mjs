// Entry of every `npm run` command. Plain JavaScript for any Node >= 20: it installs what the
// command needs (Debian packages, npm packages from the lock file, the native addon) and then
// hands over to the TypeScript command under the Node version that package-lock.json pins.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { missingDebianPackages } from "./prerequisites.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const commands = {
  appliance: "tools/appliance.ts",
  check: "tools/check.ts",
  dev: "tools/dev.ts",
  image: "image/main.ts",
  lab: "qa/lab/main.ts",
  peers: "qa/peers/main.ts",
  sim: "qa/sim/main.ts",
  test: "tools/test.ts",
  vm: "qa/vm/main.ts",
};

function fail(message) {
  console.error(`keelson: ${message}`);
  process.exit(1);
}

/** Messages go to stderr: stdout belongs to the command (`--json`). */
function step(command, args, options = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", 2, 2],
    ...options,
  });
  if (result.error) fail(`${command}: ${result.error.message}`);
  if (result.status !== 0) fail(`\`${command} ${args.join(" ")}\` failed (exit ${result.status})`);
}

function installDebianPackages(name) {
  const missing = missingDebianPackages(name);
  if (missing.length === 0) return;
  const install = `apt-get install -y --no-install-recommends ${missing.join(" ")}`;
  if (process.getuid?.() !== 0) {
    fail(`these Debian packages are missing; install them and run this again:\n  sudo ${install}`);
  }
  console.error(`keelson: installing ${missing.length} Debian packages: ${missing.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  step("apt-get", ["update", "-q"], { env });
  step("apt-get", install.split(" ").slice(1), { env });
}

function installNpmPackages() {
  const lock = readFileSync(join(root, "package-lock.json"));
  const stamp = join(root, "node_modules", ".keelson-lock");
  const digest = createHash("sha256").update(lock).digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  console.error("keelson: installing npm packages from package-lock.json");
  step("npm", ["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
  writeFileSync(stamp, digest);
}

function pinnedNode() {
  const require = createRequire(join(root, "package.json"));
  const packageName = `node-linux-${process.arch}`;
  try {
    return join(dirname(require.resolve(`${packageName}/package.json`)), "bin", "node");
  } catch {
    return fail(`no pinned Node for this machine: npm package ${packageName} is not installed`);
  }
}

const [name, ...args] = process.argv.slice(2);
if (!(name in commands))
  fail(`no such command '${name}'; there are: ${Object.keys(commands).join(", ")}`);
if (!existsSync(join(root, commands[name]))) fail(`'${name}' is not built yet (${commands[name]})`);
if (!args.includes("--help")) installDebianPackages(name);
installNpmPackages();
mkdirSync(join(root, "build"), { recursive: true });
const node = pinnedNode();
const flags = ["--disable-warning=ExperimentalWarning"];
step(node, [...flags, join(root, "native/build.ts")]);

const child = spawn(node, [...flags, join(root, commands[name]), ...args], {
  stdio: "inherit",
  env: {
    ...process.env,
    PATH: `${dirname(node)}:${process.env.PATH}`,
    // A service's or a command's start takes a third less when its TypeScript is stripped already.
    NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE ?? join(root, ".cache", "node"),
  },
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(code ?? (signal === "SIGINT" ? 130 : 143)));
