/** What holds its process for half a minute or more is made by another one: machines run meanwhile. */
import { spawn } from "node:child_process";
import { resolve } from "node:path";

const root = resolve(import.meta.dirname, "../..");

/** Runs `program`, a TypeScript file; `tail` is the last that it said. */
export async function runBuilder(
  program: string,
  arguments_: readonly string[],
  onLine: (line: string) => void = () => {},
): Promise<{ readonly code: number | null; readonly tail: string }> {
  const builder = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", program, ...arguments_],
    { cwd: root, stdio: ["ignore", "pipe", "pipe"] },
  );
  let tail = "";
  for (const stream of [builder.stdout, builder.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      tail = (tail + text).slice(-3000);
      for (const line of text.split("\n")) if (line.trim() !== "") onLine(line);
    });
  }
  const code = await new Promise<number | null>((done) => builder.once("close", done));
  return { code, tail };
}
