/** The status screen of an installed node: what a person at the machine wants to know. Pure. */
export interface StatusFacts {
  readonly version: string;
  readonly name: string;
  readonly addresses: readonly string[];
  /** SHA-256 of the certificate that the API shows; undefined while it doesn't answer. */
  readonly fingerprint: string | undefined;
  readonly units: readonly UnitState[];
  readonly warnings: readonly string[];
}

export interface UnitState {
  readonly name: string;
  /** systemd's ActiveState, and Result where it isn't success. */
  readonly active: string;
  readonly result: string;
}

export function statusScreen(facts: StatusFacts): string[] {
  const { health, details } = healthOf(facts);
  return [
    "",
    `Keelson ${facts.version}   ${facts.name}`,
    ...(facts.addresses.length === 0
      ? ["  Console      no address yet"]
      : facts.addresses.map(
          (address, index) =>
            `  ${(index === 0 ? "Console" : "").padEnd(12)} https://${hostOf(address)}/`,
        )),
    ...fingerprintLines(facts.fingerprint),
    `  Health       ${health}`,
    ...details.map((line) => `               ${line}`),
  ];
}

function hostOf(address: string): string {
  return address.includes(":") ? `[${address}]` : address;
}

/** 32 bytes as hex fill two lines of 16. */
function fingerprintLines(fingerprint: string | undefined): string[] {
  if (fingerprint === undefined) return ["  Certificate  not there yet"];
  const bytes = fingerprint.split(":");
  return [
    `  Certificate  SHA-256 ${bytes.slice(0, 16).join(":")}`,
    `                       ${bytes.slice(16).join(":")}`,
  ];
}

/** `good` only when every unit runs and the API answers. */
export function healthOf(facts: StatusFacts): { health: string; details: string[] } {
  const failed = facts.units.filter(({ active }) => active === "failed");
  const waiting = facts.units.filter(({ active }) => !["active", "failed"].includes(active));
  const details = [
    ...facts.warnings,
    ...failed.map(({ name, result }) => `${name} failed (${result})`),
  ];
  if (details.length > 0) return { health: "needs attention", details };
  if (waiting.length > 0) {
    return { health: `starting (${waiting.map(({ name }) => name).join(", ")})`, details: [] };
  }
  if (facts.fingerprint === undefined) return { health: "starting (API)", details: [] };
  return { health: "good", details: [] };
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
