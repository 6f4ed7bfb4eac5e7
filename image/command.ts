/** Runs a program of the build and turns a failure into an error that shows what it said. */
import { spawnSync } from "node:child_process";
import { KeelsonError } from "#lib/model/errors.ts";

export interface CommandOptions {
  readonly cwd?: string;
  /** The whole environment; nothing is inherited unless it stands here. */
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Buffer;
  /** Shows stdout and stderr as they come instead of keeping them. */
  readonly verbose?: boolean;
}

/** stdout as text. Throws INTERNAL with the last lines of stderr if the program fails. */
export function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): string {
  const result = spawnSync(command, [...args], {
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: [
      options.input === undefined ? "ignore" : "pipe",
      options.verbose ? 2 : "pipe",
      options.verbose ? 2 : "pipe",
    ],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.input === undefined ? {} : { input: options.input }),
  });
  if (result.error === undefined && result.status === 0) return result.stdout ?? "";
  const said = `${result.stderr ?? ""}${result.stdout ?? ""}`.trimEnd().split("\n").slice(-25);
  const why = result.error?.message ?? `exit ${result.status ?? result.signal}`;
  throw new KeelsonError(
    "INTERNAL",
    `\`${[command, ...args].join(" ").slice(0, 300)}\` failed (${why}).\n${said.join("\n")}`,
    { operation: "build image", object: command },
  );
}

export function report(message: string): void {
  process.stderr.write(`image: ${message}\n`);
}
