/**
 * libiscsi's `iscsi-test-cu`, one suite a process. Its summary counts a skipped test as passed, so
 * each test's own lines are read. A test that isn't expected to be skipped must pass.
 */
import type { Lab } from "./lab.ts";
import { runProgram } from "./program.ts";

/** What this target doesn't have, and so the suite skips. */
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

/**
 * Tests that are wrong themselves, by the lines they print when they are. A newer suite that mends
 * one passes here as well.
 */
const knownFaulty: ReadonlyMap<string, RegExp> = new Map([
  // 1.20 means to alter the command's block count but alters Data-Out PDUs, of which there are none.
  // So a sound COMPARE AND WRITE is sent; that it miscompares (0e/1d00) is right.
  ["CompareAndWrite.InvalidDataOutSize", /but failed with Sense: .*\(0x0e\)\/\(0x1d00\)/],
]);

export interface Verdict {
  /** `Suite.Test`. */
  readonly name: string;
  readonly result: "passed" | "skipped" | "failed" | "faulty";
}

/** Reads one suite's output. */
export function readVerdicts(suite: string, output: string): Verdict[] {
  const found: Verdict[] = [];
  const pattern = / {2}Test: (\S+) \.\.\.([\s\S]*?)(?=\n {2}Test: |\nRun Summary|$)/g;
  for (const [, test, body] of output.matchAll(pattern)) {
    const name = `${suite}.${test}`;
    let result: Verdict["result"] = "failed";
    if (/passed\s*$/.test(body)) result = body.includes("[SKIPPED]") ? "skipped" : "passed";
    else if (knownFaulty.get(name)?.test(body)) result = "faulty";
    found.push({ name, result });
  }
  return found;
}

async function suitesOf(family: string): Promise<string[]> {
  const { stdout, stderr } = await runProgram("iscsi-test-cu", ["-l"], { allowFailure: true });
  const pattern = new RegExp(`^${family}\\.(\\w+)\\.\\w+`, "gm");
  return [...new Set([...(stdout + stderr).matchAll(pattern)].map((match) => match[1]))].sort();
}

/** `chapUrl`: of a target that wants CHAP, with the credentials; for the tests of CHAP. */
export async function conformance(lab: Lab, url: string, chapUrl: string): Promise<void> {
  for (const [family, least] of [
    ["SCSI", 215],
    ["iSCSI", 15],
  ] as const) {
    const run = async (suite: string, test?: string): Promise<Verdict[]> => {
      const name = [family, suite, ...(test === undefined ? [] : [test])].join(".");
      const args = ["-d", "-v", "-t", name, suite === "iSCSICHAP" ? chapUrl : url];
      const { stdout, stderr } = await runProgram("iscsi-test-cu", args, {
        allowFailure: true,
        timeoutMs: 60_000,
      });
      return readVerdicts(suite, stdout + stderr);
    };
    await lab.test(`iscsi-test-cu ${family}: nothing fails, nothing more is skipped`, async () => {
      const verdicts: Verdict[] = [];
      for (const suite of await suitesOf(family)) {
        for (const verdict of await run(suite)) {
          if (verdict.result !== "skipped" || maySkip(verdict.name)) verdicts.push(verdict);
          // A test before it may have left a session in which it can't run.
          else verdicts.push(...(await run(suite, verdict.name.split(".")[1])));
        }
      }
      judge(family, least, verdicts);
    });
  }
}

function maySkip(name: string): boolean {
  return expectedSkips.has(name) || expectedSkips.has(name.split(".")[0]);
}

function judge(family: string, least: number, verdicts: readonly Verdict[]): void {
  const count = (result: Verdict["result"]) =>
    verdicts.filter((verdict) => verdict.result === result).length;
  const line = `${verdicts.length} tests: ${count("passed")} passed, ${count("skipped")} skipped, ${count("failed")} failed, ${count("faulty")} faulty`;
  console.log(`    iscsi-test-cu ${family}: ${line}`);
  const bad = verdicts.filter(({ name, result }) => {
    return result === "failed" || (result === "skipped" && !maySkip(name));
  });
  if (bad.length > 0) {
    throw new Error(`${line}\n${bad.map(({ name, result }) => `${name} ${result}`).join("\n")}`);
  }
  // Another version may have more tests; fewer means that the output wasn't read.
  if (verdicts.length < least) throw new Error(`${line}: at least ${least} were expected`);
}
