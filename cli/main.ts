#!/usr/bin/env node
/** `keelson`: the command line of a node's API. Exit codes: 0 done, 1 failed, 2 used wrongly. */
import { Command, CommanderError } from "commander";
import { explainError, isKeelsonError } from "#lib/model/errors.ts";
import { addAccountCommands } from "./commands/accounts.ts";
import { addAnswerFileCommands } from "./commands/answer-file.ts";
import { addAuditCommands } from "./commands/audit.ts";
import { addBootCommands } from "./commands/boot.ts";
import { addBundleCommands } from "./commands/bundle.ts";
import { addCertificateCommands } from "./commands/certificate.ts";
import { addIdentityProviderCommands } from "./commands/identity-provider.ts";
import { addNetworkCommands } from "./commands/network.ts";
import { addNodeCommands } from "./commands/node.ts";
import { addScheduleCommands } from "./commands/schedules.ts";
import { addScrubCommands } from "./commands/scrub.ts";
import { addSessionCommands } from "./commands/session.ts";
import { addSnapshotCommands } from "./commands/snapshots.ts";
import { addStorageCommands } from "./commands/storage.ts";
import { addStoreCommands } from "./commands/store.ts";
import { addUpgradeCommands } from "./commands/upgrade.ts";
import { complete, completionScript } from "./completion.ts";
import { printable } from "./table.ts";

function createProgram(): Command {
  const program = new Command("keelson")
    .description("Store, boot and watch machines with a Keelson node.")
    .option("--server <url>", "the node's address (default: $KEELSON_SERVER, else the last log-in)")
    .option("--json", "print JSON documents instead of tables")
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(`keelson: ${oneLine(text)} See --help.\n`),
    })
    .addHelpText(
      "after",
      `
Examples:
  keelson login https://192.0.2.10
  keelson images import debian-13-generic-amd64.qcow2 --name debian-13
  keelson boot add lab-01 --mac 52:54:00:12:34:56 --image debian-13
  keelson clients watch

Environment: KEELSON_SERVER, KEELSON_TOKEN.  Exit codes: 0 done, 1 failed, 2 used wrongly.`,
    );
  addSessionCommands(program);
  addAccountCommands(program);
  addIdentityProviderCommands(program);
  addNodeCommands(program);
  addNetworkCommands(program);
  addStorageCommands(program);
  addScrubCommands(program);
  addSnapshotCommands(program);
  addScheduleCommands(program);
  addBootCommands(program);
  addCertificateCommands(program);
  addAuditCommands(program);
  addAnswerFileCommands(program);
  addBundleCommands(program);
  addStoreCommands(program);
  addUpgradeCommands(program);
  program
    .command("completion")
    .description("print a shell's completion script")
    .argument("<shell>", "bash, zsh or fish")
    .action((shell: string) => console.log(completionScript(shell)));
  program
    .command("__complete", { hidden: true })
    .argument("[words...]")
    .allowUnknownOption()
    .action(async (words: string[]) => {
      for (const candidate of await complete(program, words)) console.log(printable(candidate));
    });
  inherit(program);
  return program;
}

/** commander's `error: missing required argument 'name'` as a sentence. */
function oneLine(text: string): string {
  const bare = text
    .replace(/^error: /, "")
    .replaceAll(/\s+/g, " ")
    .trim();
  return `${bare[0].toUpperCase()}${bare.slice(1)}${/[.?!)]$/.test(bare) ? "" : "."}`;
}

/** Subcommands throw and complain as the program does. */
function inherit(parent: Command): void {
  for (const child of parent.commands) {
    child.copyInheritedSettings(parent);
    inherit(child);
  }
}

async function main(): Promise<number> {
  // `keelson images list | head` ends when head does.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  try {
    await createProgram().parseAsync();
    // A command that has said what is bad sets it.
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) {
      return error.exitCode === 0 ? 0 : 2;
    }
    process.stderr.write(`keelson: ${printable(explainError(error))}\n`);
    return isKeelsonError(error, "INVALID_ARGUMENT") ? 2 : 1;
  }
}

process.exitCode = await main();
