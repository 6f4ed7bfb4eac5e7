/** The journal's last lines, for the Logs page and the support bundle. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);
const linesShown = 300;
/** Longer lines are cut: a page is to be read. */
const longest = 300;

/** Newest first. `search` is text, not a pattern; case doesn't matter. */
export async function readJournal(search: string, count = linesShown): Promise<string[]> {
  const wanted = search.trim();
  const { stdout } = await run(
    "journalctl",
    [
      ...["--no-pager", "--output=short-iso", "--no-hostname", "--reverse", `--lines=${count}`],
      ...(wanted === "" ? [] : [`--grep=${literal(wanted)}`, "--case-sensitive=no"]),
    ],
    { maxBuffer: 64 << 20 },
  ).catch((error: { stdout?: string; code?: unknown }) => {
    // journalctl ends with 1 when nothing matched.
    if (error.code === 1) return { stdout: error.stdout ?? "" };
    throw error;
  });
  return stdout
    .split("\n")
    .filter((line) => line !== "" && !/^-- No entries --$/.test(line))
    .map((line) => line.replace(/^\d{4}-(\S{14})\S*/, "$1").slice(0, longest));
}

/** journalctl takes PCRE2 patterns. */
function literal(text: string): string {
  return text.replaceAll(
    /[^\w ]/g,
    (character) => `\\x{${character.codePointAt(0)!.toString(16)}}`,
  );
}
