import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { parseAnswerFile } from "#lib/answer-file/answer-file.ts";
import { KeelsonError } from "#lib/model/errors.ts";
import { hashPassword } from "#lib/password/password.ts";
import { action } from "../context.ts";
import { askSecret, isInteractive, readStandardInput } from "../terminal.ts";

const minimumLength = 8;

/** Commands for an unattended installation; they ask no node. */
export function addAnswerFileCommands(program: Command): void {
  const group = program
    .command("answer-file")
    .description("answers for an unattended installation: check a file, make its password hash");

  group
    .command("check")
    .description("say whether the installer would take this file, and if not, why")
    .argument("<file>", "keelson-answers.json")
    .addHelpText("after", "\nExample:\n  keelson answer-file check keelson-answers.json")
    .action(
      action(async (context, file: string) => {
        const answers = parseAnswerFile(readText(file), file);
        const { node } = answers;
        context.print(
          { file, valid: true, node: node.name },
          `${file} is good: node ${node.name}.`,
        );
      }),
    );

  group
    .command("hash")
    .description("make the hash of a password, for the answer file's admin")
    .option("--password-stdin", "read the password from standard input")
    .addHelpText("after", "\nExample:\n  keelson answer-file hash --password-stdin < password")
    .action(
      action(async (context, options: { passwordStdin?: boolean }) => {
        const password = options.passwordStdin ? await readStandardInput() : await askTwice();
        if (password.length < minimumLength) {
          throw new KeelsonError(
            "INVALID_ARGUMENT",
            `A password has at least ${minimumLength} characters.`,
          );
        }
        const passwordHash = hashPassword(password);
        context.print({ passwordHash }, passwordHash);
      }),
    );
}

async function askTwice(): Promise<string> {
  if (!isInteractive()) {
    throw new KeelsonError("INVALID_ARGUMENT", "No password was given.", {
      remedy: "Without a terminal, use --password-stdin.",
    });
  }
  const password = await askSecret("Password: ");
  if ((await askSecret("Again: ")) === password) return password;
  throw new KeelsonError("INVALID_ARGUMENT", "The two passwords differ.");
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new KeelsonError("NOT_FOUND", `${file} can't be read: ${(cause as Error).message}.`, {
      object: file,
      cause,
    });
  }
}
