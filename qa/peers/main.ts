/** `npm run peers -- <name>`: our services beside a peer's, same client, same disk, in turn. */
import { cpus, tmpdir } from "node:os";
import { parseArgs } from "node:util";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { formatSize, parseSize } from "#lib/model/size.ts";
import { compareIscsi, formatTable, workloads } from "./iscsi.ts";
import { enterNamespaces, formatMemory, limitBytes, measureMemory } from "./memory.ts";

const help = `Usage: npm run peers -- iscsi|memory [OPTIONS]

  memory  PSS of each service of a node, after a small load, as root; bar: ${limitBytes / 2 ** 20} MiB together
  iscsi   our iSCSI target over the chunk store against tgt over a raw file

  --rounds N      rounds, each target once a round (default 5)
  --seconds N     of each measurement (default 3)
  --region SIZE   part of the disk under test; it should fit in memory (default 512M)
  --only NAME     one workload (repeatable): ${workloads.map(({ name }) => name).join(", ")}
  --directory D   on the disk to test (default ${tmpdir()})
  --flag FLAG     memory: also give Node this flag (repeatable), such as --flag=--lite-mode
  --json          the result as JSON
  --help

Exit 1 when a bar is missed: CPU per I/O at 4 KiB, queue depth 32, at most 0.5 of tgt's for reads
and 0.6 for writes.`;

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
  if (name !== "iscsi" && name !== "memory") {
    throw invalid(`'${positionals.join(" ")}' is no comparison; there are: iscsi, memory.`);
  }
  const unknown = values.only.find((name) => !workloads.some((workload) => workload.name === name));
  if (unknown !== undefined) throw invalid(`--only ${unknown}: there is no such workload.`);
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
    console.log(result.passed ? "\nBars met." : "\nA bar is MISSED.");
  }
  process.exit(result.passed ? 0 : 1);
} catch (error) {
  console.error(`peers: ${explainError(error)}`);
  process.exit(2);
}
