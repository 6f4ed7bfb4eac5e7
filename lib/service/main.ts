/**
 * What every service's main.ts does: arguments with `--help`, readiness and watchdog to systemd,
 * SIGTERM, and an end without a stack trace for errors that a person can act on.
 */
import { type ParseArgsOptionsConfig, parseArgs } from "node:util";
import { type ErrorCode, explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { notify } from "#native";
import { createLog, type Log } from "./log.ts";

export interface ServiceDefinition<Options extends ParseArgsOptionsConfig> {
  readonly name: string;
  /** Printed by `--help`. */
  readonly usage: string;
  readonly options: Options;
  start(context: ServiceContext<Options>): Promise<RunningService>;
}

export interface ServiceContext<Options extends ParseArgsOptionsConfig> {
  readonly values: ReturnType<typeof parseArgs<{ options: Options }>>["values"];
  readonly log: Log;
  /** Ends the process with a message: for faults after start that the service can't survive. */
  fail(error: unknown): never;
}

export interface RunningService {
  /** One line for `systemctl status`. */
  readonly status?: string;
  /** Addresses it bound, told to a parent process with its readiness: port 0 shows the real one. */
  readonly addresses?: Readonly<Record<string, string>>;
  /** False stops the watchdog from being fed, so that systemd restarts the service. */
  healthy?(): boolean;
  stop(): Promise<void>;
}

export async function runService<Options extends ParseArgsOptionsConfig>(
  definition: ServiceDefinition<Options>,
): Promise<void> {
  const log = createLog(definition.name);
  const fail = (error: unknown): never => {
    log.error(explainError(error));
    if (!isKeelsonError(error) && error instanceof Error) log.debug(error.stack ?? "");
    process.exit(exitStatus(error));
  };
  process.on("uncaughtException", fail);
  process.on("unhandledRejection", fail);
  try {
    const values = readArguments(definition);
    const service = await definition.start({ values, log, fail });
    feedWatchdog(service);
    notify(`READY=1\nSTATUS=${service.status ?? "running"}`);
    let stopping = false;
    const stop = () => {
      if (stopping) return;
      stopping = true;
      notify("STOPPING=1");
      service.stop().then(() => process.exit(0), fail);
    };
    process.on("SIGTERM", stop);
    process.on("SIGINT", stop);
    tellParent(service, stop);
  } catch (error) {
    fail(error);
  }
}

/** EX_CONFIG of sysexits.h: what it was given can't be used, so another start would end the same. */
const badConfiguration = 78;
const lasting: readonly ErrorCode[] = [
  "INVALID_ARGUMENT",
  "NOT_FOUND",
  "FORMAT_CORRUPT",
  "FORMAT_UNKNOWN",
];

function exitStatus(error: unknown): number {
  return isKeelsonError(error) && lasting.includes(error.code) ? badConfiguration : 1;
}

/** Outside systemd (`npm run dev`, tests) the parent is told over Node's IPC channel, if it gave one. */
function tellParent(service: RunningService, stop: () => void): void {
  if (process.send === undefined) return;
  process.on("disconnect", stop);
  process.send({ ready: true, addresses: service.addresses ?? {} });
}

function readArguments<Options extends ParseArgsOptionsConfig>(
  definition: ServiceDefinition<Options>,
): ServiceContext<Options>["values"] {
  if (process.argv.includes("--help")) {
    console.log(definition.usage);
    process.exit(0);
  }
  try {
    return parseArgs({ options: definition.options }).values;
  } catch (cause) {
    throw new KeelsonError("INVALID_ARGUMENT", `${(cause as Error).message}.`, {
      remedy: "See --help.",
      cause,
    });
  }
}

/** sd_watchdog_enabled(3): feed at a third of the interval, from the event loop it watches. */
function feedWatchdog(service: RunningService): void {
  const intervalUs = Number(process.env.WATCHDOG_USEC ?? 0);
  if (!(intervalUs > 0)) return;
  setInterval(() => {
    if (service.healthy?.() ?? true) notify("WATCHDOG=1");
  }, intervalUs / 3000).unref();
}
