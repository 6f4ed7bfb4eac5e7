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
  // Whose result nobody waits for any more.
  const end = () => builder.kill();
  process.once("exit", end);
  let tail = "";
  for (const stream of [builder.stdout, builder.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      tail = (tail + text).slice(-3000);
      for (const line of text.split("\n")) if (line.trim() !== "") onLine(line);
    });
  }
  const code = await new Promise<number | null>((done) => builder.once("close", done));
  process.off("exit", end);
  return { code, tail };
}

const making = new Map<string, Promise<unknown>>();

/** Who asks for what is being made already waits for that. */
export function makeOnce<Made>(what: string, make: () => Promise<Made>): Promise<Made> {
  const under = making.get(what);
  if (under !== undefined) return under as Promise<Made>;
  const made = make().finally(() => making.delete(what));
  making.set(what, made);
  return made;
}
