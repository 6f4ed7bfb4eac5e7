/** What every command is given: the connection, and how to print. */
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { parseSize } from "#lib/model/size.ts";
import { Connection } from "./connection.ts";
import { type Column, formatTable } from "./table.ts";

export interface GlobalOptions {
  readonly json?: boolean;
  readonly server?: string;
}

export class CommandContext {
  readonly json: boolean;
  readonly #options: GlobalOptions;
  #connection: Connection | undefined;

  constructor(options: GlobalOptions) {
    this.#options = options;
    this.json = options.json ?? false;
  }

  get api(): Connection {
    this.#connection ??= Connection.open(this.#options);
    return this.#connection;
  }

  get server(): string | undefined {
    return this.#options.server;
  }

  async close(): Promise<void> {
    await this.#connection?.close();
  }

  /** The document with --json, else `text`. */
  print(document: unknown, text: string | (() => string)): void {
    const shown = this.json
      ? JSON.stringify(document, null, 2)
      : typeof text === "string"
        ? text
        : text();
    if (shown !== "") console.log(shown);
  }

  table<Row>(rows: readonly Row[], columns: readonly Column<Row>[], empty: string): void {
    this.print(rows, () =>
      rows.length === 0 ? empty : formatTable(columns, rows, process.stdout.columns),
    );
  }

  /** By name, by id, or by an id's unambiguous beginning. */
  async find<Row extends { readonly id: string; readonly name: string }>(
    path: string,
    kind: string,
    text: string,
  ): Promise<Row> {
    const rows = await this.api.get<Row[]>(path);
    const wanted = text.toLowerCase();
    const named = rows.filter(({ id, name }) => id === wanted || name.toLowerCase() === wanted);
    const found =
      named.length > 0
        ? named
        : rows.filter(({ id }) => wanted.length >= 4 && id.startsWith(wanted));
    if (found.length === 1) return found[0];
    if (found.length > 1) {
      throw new KeelsonError("INVALID_ARGUMENT", `${text} could be several ${kind}s.`, {
        remedy: `Give the whole id: ${found.map(({ id }) => id).join(", ")}.`,
      });
    }
    throw new KeelsonError("NOT_FOUND", `There is no ${kind} ${text}.`, { object: text });
  }
}

/** Runs a command's work with its context. */
export function action<Args extends unknown[]>(
  work: (context: CommandContext, ...args: Args) => Promise<void>,
) {
  // commander calls with the arguments, the options, the command.
  return async (...given: unknown[]) => {
    const command = given.at(-1) as Command;
    const context = new CommandContext(command.optsWithGlobals<GlobalOptions>());
    try {
      await work(context, ...(given.slice(0, -1) as Args));
    } finally {
      await context.close();
    }
  };
}

export function sizeArgument(text: string): number {
  const sizeBytes = parseSize(text);
  if (sizeBytes !== undefined && sizeBytes > 0) return sizeBytes;
  throw new KeelsonError("INVALID_ARGUMENT", `${text} is not a size.`, {
    remedy: "Write it like 512M, 10G or 1.5TiB.",
  });
}

/** A PEM file's text; NOT_FOUND if it can't be read. */
export function readPem(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    const why =
      (cause as NodeJS.ErrnoException).code === "ENOENT" ? "is not there" : "can't be read";
    throw new KeelsonError("NOT_FOUND", `${path} ${why}.`, {
      object: path,
      remedy: "Give the path of a PEM file.",
      cause,
    });
  }
}

/** For options that may be given several times. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

export function clock(at: string): string {
  const date = new Date(at);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
