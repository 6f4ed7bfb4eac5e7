/** `keelson` as its own process against a node of the tests. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { expect } from "vitest";
import type { TestNode } from "#services/api/platform.fixture.ts";

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs it with what `environment` adds to this process's. */
export function spawnKeelson(
  args: readonly string[],
  input: string,
  environment: NodeJS.ProcessEnv,
): Promise<Outcome> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "main.ts"), ...args], {
    env: { ...process.env, NODE_NO_WARNINGS: "1", ...environment },
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  return new Promise((resolve) =>
    child.once("close", (status) => resolve({ status, stdout, stderr })),
  );
}

/** Runs it as `node`'s admin; other variables in `environment`. */
export function runKeelson(
  node: TestNode,
  args: readonly string[],
  input = "",
  environment: NodeJS.ProcessEnv = {},
): Promise<Outcome> {
  return spawnKeelson(args, input, {
    XDG_CONFIG_HOME: join(node.state, "config"),
    KEELSON_SERVER: node.http,
    KEELSON_TOKEN: node.token,
    ...environment,
  });
}

/** What it prints; fails the test unless it exits with 0. */
export async function keelsonOf(node: TestNode, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runKeelson(node, args);
  expect(status, `keelson ${args.join(" ")}: ${stderr}`).toBe(0);
  return stdout;
}
