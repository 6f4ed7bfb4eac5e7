/** What a scenario of `npm run vm` is given: steps with their time and result, options, a place. */
import type { AccelerationChoice } from "./acceleration.ts";
import type { Installations } from "./installations.ts";
import type { Firmware } from "./machine.ts";

export interface Scenario {
  readonly name: string;
  /** One line for `--list`. */
  readonly summary: string;
  /** Makes, or finds, what takes a while and needs no machine: called beside earlier scenarios. */
  prepare?(): Promise<unknown>;
  run(context: ScenarioContext): Promise<void>;
}

export interface ScenarioContext {
  /** Firmwares of the appliance to try. */
  readonly firmwares: readonly Firmware[];
  /** Firmwares of diskless clients to try. */
  readonly clients: readonly Firmware[];
  readonly acceleration: AccelerationChoice;
  /** For disks, logs, screenshots; kept when something failed or `--keep` was given. */
  readonly directory: string;
  readonly iso: string;
  readonly installations: Installations;
  readonly verbose: boolean;
  /** Power cuts of scenario `upgrade`. */
  readonly cuts: number;
  /** Snapshots of scenario `database`. */
  readonly snapshots: number;
  /** Seed of what is random. */
  readonly seed: number;
  /** Of scenario `rollback`: only these kinds of broken release; empty: all. */
  readonly broken: readonly string[];
  /**
   * Runs one step. Its failure is reported and thrown, so that what needs it is skipped; a scenario
   * catches it where the rest can go on.
   */
  step<Result>(name: string, run: () => Promise<Result>): Promise<Result>;
  /** A group of steps: a failure inside ends the group only. */
  group(name: string, run: () => Promise<void>): Promise<void>;
  note(text: string): void;
}

export interface StepResult {
  readonly scenario: string;
  readonly name: string;
  readonly ok: boolean;
  readonly seconds: number;
  readonly error?: string;
}
