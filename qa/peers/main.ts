/** `npm run peers -- <name>`: our services beside a peer's, same client, same disk, in turn. */
import { cpus, tmpdir } from "node:os";
import { parseArgs } from "node:util";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { formatSize, parseSize } from "#lib/model/size.ts";
import { compareIscsi, formatTable, workloads } from "./iscsi.ts";
import { enterNamespaces, formatMemory, limitBytes, measureMemory } from "./memory.ts";
import { comparisons } from "./store/all.ts";
import { compareStore, formatStore } from "./store.ts";

/** Of each benchmark, what `--only` chooses from. */
const parts: Record<string, readonly string[]> = {
  iscsi: workloads.map(({ name }) => name),
  memory: [],
  store: comparisons.map(({ name }) => name),
};

const help = `Usage: npm run peers -- iscsi|memory|store [OPTIONS]

  memory  PSS of each service of a node, after a small load, as root; bar: ${limitBytes / 2 ** 20} MiB together
  iscsi   our iSCSI target over the chunk store against tgt over a raw file
  store   the store's engine against plain files and qcow2; the bars stand beside the figures

  --rounds N      rounds, each target once a round (default 5)
  --seconds N     of each measurement (default 3)
  --region SIZE   part of the disk under test; it should fit in memory (default 512M)
  --only NAME     one part (repeatable)
                  iscsi: ${parts.iscsi.join(", ")}
                  store: ${parts.store.join(", ")}
  --directory D   on the disk to test (default ${tmpdir()})
  --flag FLAG     memory, store: also give Node this flag (repeatable), such as --flag=--cpu-prof
  --json          the result as JSON
  --help

Exit 1 when a bar is missed. That of iscsi: CPU per I/O at 4 KiB, queue depth 32, at most 0.5 of
tgt's for reads and 0.6 for writes.`;

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "3" },
      region: { type: "string", default: "512M" },
      only: { type: "string", multiple: true, default: [] },
      directory: { type: "string", default: tmpdir() },
      flag: { type: "string", multiple: true, default: [] },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    process.exit(0);
  }
  const name = positionals.length === 1 ? positionals[0] : "";
  if (name !== "iscsi" && name !== "memory" && name !== "store") {
    throw invalid(`'${positionals.join(" ")}' is no comparison; there are: iscsi, memory, store.`);
  }
  const unknown = values.only.find((part) => !parts[name].includes(part));
  if (unknown !== undefined) throw invalid(`--only ${unknown}: ${name} has no such part.`);
  const regionBytes = parseSize(values.region);
  if (regionBytes === undefined || regionBytes < 2 ** 20 || regionBytes % 2 ** 20 !== 0) {
    throw invalid(`--region ${values.region} is not a whole number of MiB.`);
  }
  return {
    ...values,
    name,
    rounds: count("rounds", values.rounds),
    seconds: count("seconds", values.seconds),
    regionBytes,
  };
}

function count(name: string, text: string): number {
  const number = Number(text);
  if (Number.isInteger(number) && number >= 1 && number <= 1000) return number;
  throw invalid(`--${name} ${text} is not a number from 1 to 1000.`);
}

const verdict = (passed: boolean) => (passed ? "Bars met." : "A bar is MISSED.");

function invalid(message: string): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", message, { remedy: "See npm run peers -- --help." });
}

try {
  const options = readArguments();
  if (options.name === "memory") {
    if (process.env.KEELSON_MEMORY_INSIDE === undefined) enterNamespaces(process.argv.slice(1));
    const rows = await measureMemory(options.flag, (line) => console.error(line));
    const passed = rows.reduce((sum, { pssBytes }) => sum + pssBytes, 0) <= limitBytes;
    console.log(options.json ? JSON.stringify({ passed, rows }) : formatMemory(rows));
    process.exit(passed ? 0 : 1);
  }
  if (options.name === "store") {
    // Comparisons run in process groups of their own: our exit ends them and removes their files.
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.on(signal, () => process.exit(130));
    }
    const progress = (line: string) => console.error(line);
    const result = await compareStore({ ...options, flags: options.flag, progress });
    if (options.json) console.log(JSON.stringify(result));
    else console.log(`\n${formatStore(result)}\n\n${verdict(result.passed)}`);
    process.exit(result.passed ? 0 : 1);
  }
  const result = await compareIscsi({
    ...options,
    progress: (line) => console.error(line),
  });
  if (options.json) console.log(JSON.stringify(result));
  else {
    console.log(`
Client: libiscsi, one session, over loopback, on the same machine (${cpus().length} x ${cpus()[0].model.trim()}).
Ours: iscsi-target and chunk-store, thin volume, checksum on every block. tgt: one I/O thread, raw file.
${result.rounds} rounds of ${result.seconds} s, ${formatSize(result.regionBytes)}, all in the page cache; filled with the block size under test until every block of both files was written.
us/IO: user and system time of all of the target's processes. Medians; ratios are medians of each round's.
`);
    console.log(formatTable(result));
    console.log(`\n${verdict(result.passed)}`);
  }
  process.exit(result.passed ? 0 : 1);
} catch (error) {
  console.error(`peers: ${explainError(error)}`);
  process.exit(2);
}
