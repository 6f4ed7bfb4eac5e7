/** A chunk-store process below a node of the tests, in its newest format. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { dataFormats, raised } from "#lib/data-format/formats.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import type { TestNode } from "./platform.fixture.ts";

export async function startStore(node: TestNode, ...options: string[]): Promise<ChildProcess> {
  const formats = new HeldFormatsFile(join(node.state, "formats.json"));
  formats.write(raised(formats.read(), dataFormats));
  const child = spawn(
    process.execPath,
    [
      join(import.meta.dirname, "../chunk-store/main.ts"),
      ...["--state", join(node.state, "store"), "--run", node.storeRun, ...options],
    ],
    {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, KEELSON_FORMATS: formats.path },
    },
  );
  let log = "";
  await new Promise<void>((resolve, reject) => {
    child.stderr!.on("data", (text) => {
      log += text;
      if (log.includes("serving")) resolve();
    });
    child.on("exit", (code) => reject(new Error(`exit ${code}: ${log}`)));
  });
  return child;
}

export async function stopStore(child: ChildProcess): Promise<void> {
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await exited;
}
