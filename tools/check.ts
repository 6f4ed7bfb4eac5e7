/** `npm run check`: formatter, linter, types, architecture. Zero warnings, or exit 1. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";

const help = `Usage: npm run check [-- --fix]

Format and lint (Biome), types (tsc), architecture (who may import whom).
  --fix    let Biome write what it can mend`;

const { values } = parseArgs({
  options: { fix: { type: "boolean", default: false }, help: { type: "boolean", default: false } },
});
if (values.help) {
  console.log(help);
  process.exit(0);
}

const root = join(import.meta.dirname, "..");
const bin = (name: string) => join(root, "node_modules/.bin", name);
const steps: [string, string[]][] = [
  [bin("biome"), ["check", "--error-on-warnings", ...(values.fix ? ["--write"] : []), "."]],
  [bin("tsc"), ["-p", "tsconfig.json"]],
  [bin("vitest"), ["run", "tools/architecture.test.ts"]],
];
for (const [command, args] of steps) {
  const result = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (result.status !== 0) process.exit(result.status ?? 1);
}
