/** The audit log: looked at, exported, and checked here, without trusting the node. */
import { createReadStream, createWriteStream, readFileSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { finished } from "node:stream/promises";
import type { Command } from "commander";
import { ChainVerifier } from "#lib/audit/chain.ts";
import { type KeptHead, readHeadLine } from "#lib/audit/heads.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import type { AuditHeads, AuditPage } from "#services/api/audit-schema.ts";
import { action, type CommandContext, clock } from "../context.ts";
import { addAuditTargetCommands } from "./audit-target.ts";

interface ListOptions {
  readonly limit: string;
  readonly before?: string;
  readonly user?: string;
  readonly action?: string;
  readonly target?: string;
  readonly outcome?: string;
  readonly since?: string;
  readonly until?: string;
}

interface VerifyOptions {
  readonly file?: string;
  readonly heads?: string;
  readonly node?: string;
  readonly partial?: boolean;
}

export function addAuditCommands(program: Command): void {
  const audit = program.command("audit").description("who did what: the node's audit log");
  audit
    .command("list", { isDefault: true })
    .description("list entries, the newest first")
    .option("--limit <n>", "how many, at most 1000", "50")
    .option("--before <sequence>", "those older than this entry")
    .option("--user <user>", "of this user")
    .option("--action <text>", "whose action contains this, such as /volumes")
    .option("--target <id>", "done to this")
    .option("--outcome <outcome>", "done, refused or failed")
    .option("--since <time>", "from this time on, such as 2026-11-21T00:00:00Z")
    .option("--until <time>", "up to this time")
    .action(
      action(async (context, options: ListOptions) => {
        const query = new URLSearchParams(
          Object.entries(options).filter(([, value]) => typeof value === "string"),
        );
        const page = await context.api.get<AuditPage>(`/audit?${query}`);
        if (context.json) return context.print(page, "");
        context.table(
          page.entries,
          [
            { title: "#", value: ({ sequence }) => sequence, align: "right", whole: true },
            { title: "TIME", value: ({ time }) => clock(time), whole: true },
            { title: "USER", value: ({ user, via }) => user ?? via },
            { title: "FROM", value: ({ address }) => address },
            { title: "ACTION", value: (entry) => entry.action },
            { title: "TARGET", value: ({ target }) => target },
            { title: "OUTCOME", value: ({ outcome }) => outcome, whole: true },
            { title: "DETAIL", value: ({ detail }) => detail },
          ],
          "No entries.",
        );
        if (page.next !== null) {
          process.stderr.write(`Older ones: keelson audit list --before ${page.next}\n`);
        }
      }),
    );
  audit
    .command("export")
    .description("write the log as it stands, a JSON document a line, oldest first")
    .option("--from <sequence>", "from this entry on", "1")
    .option("--out <file>", "to this file instead of standard output")
    .action(
      action(async (context, options: { from: string; out?: string }) => {
        const body = await context.api.download(`/audit/export?from=${Number(options.from)}`);
        await copy(body, options.out);
      }),
    );
  audit
    .command("heads")
    .description("show the newest entry's hash, to be kept where the node can't reach it")
    .option("--watch", "print each new head, until interrupted")
    .option("--every <seconds>", "how often to look with --watch", "10")
    .option("--append <file>", "append them to this file as well, for `audit verify --heads`")
    .action(
      action(async (context, options: { watch?: boolean; every: string; append?: string }) => {
        const everyMs = Math.max(1, Number(options.every) || 10) * 1000;
        let last = -1;
        do {
          const { head, files } = await context.api.get<AuditHeads>("/audit/heads");
          const fresh = last === -1 && !options.watch ? [...files.slice(0, -1), head] : [head];
          if (head.sequence !== last) {
            const lines = fresh.map((each) => JSON.stringify(each));
            if (options.append !== undefined) {
              await appendFile(options.append, `${lines.join("\n")}\n`, { mode: 0o600 });
            }
            console.log(lines.join("\n"));
            last = head.sequence;
          }
          if (options.watch) await new Promise((resolve) => setTimeout(resolve, everyMs));
        } while (options.watch);
      }),
    );
  audit
    .command("verify")
    .description("check the chain here, and that it still contains heads exported earlier")
    .option("--file <file>", "an export, instead of the node's log")
    .option(
      "--heads <file>",
      "heads as `audit heads` prints them, or as a target has received them",
    )
    .option("--node <name>", "only heads of this node: for a file with those of several")
    .option("--partial", "the export begins later: that its beginning is missing is right")
    .addHelpText(
      "after",
      `
Without heads an edit and a removed entry are found, but not an end that was cut off, nor a log
written anew: keep heads somewhere else.

Examples:
  keelson audit heads --append heads.ndjson
  keelson audit verify --heads heads.ndjson
  keelson audit verify --heads /var/log/keelson-heads.log --node node-1`,
    )
    .action(action(verify));
  addAuditTargetCommands(audit);
}

async function verify(context: CommandContext, options: VerifyOptions): Promise<void> {
  const verifier = new ChainVerifier(
    options.heads === undefined ? [] : readHeads(options.heads, options.node),
  );
  const input =
    options.file === undefined
      ? await context.api.download("/audit/export")
      : createReadStream(options.file);
  const failed = new Promise<never>((_, reject) => input.once("error", reject));
  const read = (async () => {
    const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
    for await (const line of lines) verifier.add(line);
  })();
  await Promise.race([read, failed]).catch((cause) => {
    throw new KeelsonError("NOT_FOUND", `The log can't be read: ${(cause as Error).message}.`, {
      cause,
    });
  });
  const verdict = verifier.verdict();
  if (!verdict.ok) {
    throw new KeelsonError(
      "FORMAT_CORRUPT",
      `The audit log was tampered with: line ${verdict.line}: ${verdict.fault}.`,
      { remedy: "Keep it as it is, and compare it with an older export." },
    );
  }
  if (!verdict.beginningExplained && !options.partial) {
    throw new KeelsonError(
      "FORMAT_CORRUPT",
      `The audit log was tampered with: entries before ${verdict.firstSequence} are missing, and no entry says that they were deleted.`,
      { remedy: "Give --partial if you left them out of the export yourself." },
    );
  }
  const old = verdict.uncheckedHeads;
  context.print(
    verdict,
    `${verdict.entries} entries, ${verdict.firstSequence} to ${verdict.head.sequence}: whole.` +
      (options.heads === undefined
        ? " No heads were given: a cut-off end would not be seen."
        : "") +
      (old > 0 ? ` ${old} heads are older than the log.` : ""),
  );
}

/** Of one node: heads of several say different things of the same sequence. */
function readHeads(path: string, node: string | undefined): KeptHead[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new KeelsonError("NOT_FOUND", `${path} can't be read.`, { cause });
  }
  const found: KeptHead[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const head = readHeadLine(line);
    if (head === undefined) {
      throw new KeelsonError("INVALID_ARGUMENT", `${path}, line ${index + 1}, is no head.`, {
        remedy:
          "Give a file of lines as `keelson audit heads` prints them, or as a target got them.",
      });
    }
    found.push(head);
  }
  const nodes = [...new Set(found.flatMap((head) => head.node ?? []))];
  if (node === undefined && nodes.length > 1) {
    throw new KeelsonError("INVALID_ARGUMENT", `${path} has heads of ${nodes.join(", ")}.`, {
      remedy: "Say with --node whose log this is.",
    });
  }
  const heads = found.filter((head) => node === undefined || (head.node ?? node) === node);
  if (heads.length > 0) return heads;
  throw new KeelsonError("INVALID_ARGUMENT", `${path} has no head${node ? ` of ${node}` : ""}.`, {
    remedy: "Without heads a cut-off end would not be seen.",
  });
}

async function copy(from: Readable, path: string | undefined): Promise<void> {
  if (path === undefined) {
    for await (const part of from) {
      if (!process.stdout.write(part)) {
        await new Promise((resolve) => process.stdout.once("drain", resolve));
      }
    }
    return;
  }
  const out: Writable = createWriteStream(path, { mode: 0o600 });
  from.pipe(out);
  await finished(out);
}
