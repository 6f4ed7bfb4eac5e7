/** What the status screen knows of its node, and who tells it. */
import type { NetworkView } from "#services/network/schema.ts";

export interface UnitState {
  readonly name: string;
  /** systemd's ActiveState, and Result where it isn't success. */
  readonly active: string;
  readonly result: string;
}

export interface ConditionView {
  readonly severity: string;
  /** What it is about: a service, an interface; null for the node. */
  readonly subject: string | null;
  readonly title: string;
  readonly remedy: string | null;
}

/** As api tells it. */
export interface ApiFacts {
  readonly name: string;
  readonly version: string;
  readonly developmentBuild: boolean;
  readonly addresses: readonly string[];
  /** SHA-256 of the certificate, as browsers show it. */
  readonly fingerprint: string | null;
  /** Of the CA at the top of its chain, as `keelson login` shows it. */
  readonly caFingerprint: string | null;
  readonly conditions: readonly ConditionView[];
}

export interface SlotFacts {
  readonly running: string;
  readonly other: string;
  /** Null: empty, or not known. */
  readonly otherVersion: string | null;
  /** Why it can't be booted, to be read after its name; undefined if it can. */
  readonly why: string | undefined;
}

export interface NodeFacts {
  /** From node.env; empty where the node isn't set up. */
  readonly name: string;
  readonly version: string;
  readonly developmentBuild: boolean;
  /** The disk has no node.json: not installed, or reset. */
  readonly unconfigured: boolean;
  readonly units: readonly UnitState[];
  /** Undefined while it doesn't answer. */
  readonly api: ApiFacts | undefined;
  readonly network: NetworkView | undefined;
  readonly slots: SlotFacts | undefined;
}

/** `systemctl show -p Id,LoadState,ActiveState,Result,ConditionResult` of several units. */
export function readUnitStates(output: string): UnitState[] {
  return (
    output
      .split(/\n\n+/)
      .map((block) => Object.fromEntries(block.split("\n").map((line) => splitOnce(line))))
      .filter(({ Id, LoadState }) => Id !== undefined && LoadState === "loaded")
      // Not started because a condition says so (netboot without a configuration) is as it should be.
      .filter(
        ({ ActiveState, ConditionResult }) =>
          !(ActiveState === "inactive" && ConditionResult === "no"),
      )
      .map(({ Id, ActiveState, Result }) => ({
        name: Id.replace(/\.service$/, "").replace(/^keelson-/, ""),
        active: ActiveState,
        result: Result,
      }))
  );
}

function splitOnce(line: string): [string, string] {
  const at = line.indexOf("=");
  return [line.slice(0, at), line.slice(at + 1)];
}

export interface Health {
  readonly word: string;
  readonly details: readonly string[];
}

/** `good` only when every unit runs, the API answers, and no condition is critical. */
export function healthOf(facts: NodeFacts): Health {
  const failed = facts.units.filter(({ active }) => active === "failed");
  const waiting = facts.units.filter(({ active }) => !["active", "failed"].includes(active));
  const conditions = facts.api?.conditions ?? [];
  const told = (severity: string) =>
    conditions
      .filter((condition) => condition.severity === severity)
      .map(({ title, subject, remedy }) => {
        const what = subject === null ? title : `${title} (${subject})`;
        const stop = /[.!?]$/.test(what) ? "" : ".";
        return remedy === null ? what : `${what}${stop} ${remedy}`;
      });
  const critical = [
    ...failed.map(({ name, result }) => `${name} failed (${result})`),
    ...told("critical"),
  ];
  const warnings = told("warning");
  if (facts.unconfigured) return { word: "not set up", details: [] };
  if (critical.length > 0) {
    return { word: "needs attention", details: [...critical, ...warnings] };
  }
  if (waiting.length > 0) {
    return { word: `starting (${waiting.map(({ name }) => name).join(", ")})`, details: [] };
  }
  if (facts.api === undefined) return { word: "starting (API)", details: [] };
  return warnings.length > 0
    ? { word: "good, with warnings", details: warnings }
    : { word: "good", details: [] };
}
