/**
 * libiscsi's `iscsi-test-cu`, one suite a process. Its summary counts a skipped test as passed, so
 * each test's own lines are read. A test that isn't expected to be skipped must pass.
 */
import type { Lab } from "./lab.ts";
import { runProgram } from "./program.ts";

/** What this target doesn't have, and so the suite skips. Nothing is expected to fail. */
const expectedSkips: ReadonlyMap<string, string> = new Map([
  ["ExtendedCopy", "EXTENDED COPY is not there"],
  ["ReceiveCopyResults", "EXTENDED COPY is not there"],
  ["GetLBAStatus", "the ring can't ask the store what is mapped"],
  ["MultipathIO", "one path was given"],
  ["CompareAndWrite.Unwritten", "one path was given"],
  ["NoMedia", "not removable"],
  ["PreventAllow", "not removable"],
  ["StartStopUnit", "not removable"],
  ["ReadDefectData12", "only the ten-byte form is there"],
  ["ReadOnly", "the unit is writable"],
  ["ReportSupportedOpcodes.OneCommand", "it runs; the tool says so of a refusal it asks for"],
  ["Reserve6", "the old RESERVE(6) is not there"],
  ["Sanitize", "SANITIZE is not there"],
  ["WriteAtomic16", "WRITE ATOMIC is not there"],
  ["WriteSame10.ZeroBlocks", "WSNZ: zero blocks are refused"],
  ["WriteSame16.ZeroBlocks", "WSNZ: zero blocks are refused"],
]);

export interface Verdict {
  /** `Suite.Test`. */
  readonly name: string;
  readonly result: "passed" | "skipped" | "failed";
}

/** Reads one suite's output. */
export function readVerdicts(suite: string, output: string): Verdict[] {
  const found: Verdict[] = [];
  const pattern = / {2}Test: (\S+) \.\.\.([\s\S]*?)(?=\n {2}Test: |\nRun Summary|$)/g;
  for (const [, test, body] of output.matchAll(pattern)) {
    let result: Verdict["result"] = "failed";
    if (/passed\s*$/.test(body)) result = body.includes("[SKIPPED]") ? "skipped" : "passed";
    found.push({ name: `${suite}.${test}`, result });
  }
  return found;
}

async function suitesOf(family: string): Promise<string[]> {
  const { stdout, stderr } = await runProgram("iscsi-test-cu", ["-l"], { allowFailure: true });
  const pattern = new RegExp(`^${family}\\.(\\w+)\\.\\w+`, "gm");
  return [...new Set([...(stdout + stderr).matchAll(pattern)].map((match) => match[1]))].sort();
}

export async function conformance(lab: Lab, url: string): Promise<void> {
  for (const [family, least] of [
    ["SCSI", 215],
    ["iSCSI", 15],
  ] as const) {
    await lab.test(`iscsi-test-cu ${family}: nothing fails, nothing more is skipped`, async () => {
      const verdicts: Verdict[] = [];
      for (const suite of await suitesOf(family)) {
        const args = ["-d", "-v", "-t", `${family}.${suite}`, url];
        const { stdout, stderr } = await runProgram("iscsi-test-cu", args, {
          allowFailure: true,
          timeoutMs: 120_000,
        });
        verdicts.push(...readVerdicts(suite, stdout + stderr));
      }
      judge(family, least, verdicts);
    });
  }
}

function judge(family: string, least: number, verdicts: readonly Verdict[]): void {
  const count = (result: Verdict["result"]) =>
    verdicts.filter((verdict) => verdict.result === result).length;
  const line = `${verdicts.length} tests: ${count("passed")} passed, ${count("skipped")} skipped, ${count("failed")} failed`;
  console.log(`    iscsi-test-cu ${family}: ${line}`);
  const bad = verdicts.filter(({ name, result }) => {
    const mayskip = expectedSkips.has(name) || expectedSkips.has(name.split(".")[0]);
    return result === "failed" || (result === "skipped" && !mayskip);
  });
  if (bad.length > 0) {
    throw new Error(`${line}\n${bad.map(({ name, result }) => `${name} ${result}`).join("\n")}`);
  }
  // Another version may have more tests; fewer means that the output wasn't read.
  if (verdicts.length < least) throw new Error(`${line}: at least ${least} were expected`);
}
