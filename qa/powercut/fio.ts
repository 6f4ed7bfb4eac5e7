/**
 * fio as the writer: before each cut it fills a volume of its own, every block with the number
 * of the cut and its place, and that is flushed. After the cut it reads them all.
 */
import { type ChildProcess, spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";
import type { VolumeId } from "#lib/model/ids.ts";
import { endProcess } from "#qa/processes.ts";
import { startStorageDaemon } from "#qa/storage-daemon.ts";
import type { NbdGrant } from "#services/chunk-store/schema.ts";
import type { StoreProcess } from "./store-process.ts";

export const fioVolumeId = "f10f10f1-0f10-4f10-8f10-f10f10f10f10" as VolumeId;
export const fioVolumeBytes = 4 * 2 ** 20;

export function requireFio(): void {
  if (spawnSync("fio", ["--version"]).status === 0) return;
  throw new KeelsonError("NOT_FOUND", "There is no fio.", { remedy: "apt-get install fio" });
}

/** Each block once, in an order and with contents of their own for each `round`. */
export async function fioWrite(store: StoreProcess, round: number): Promise<void> {
  const { status, text } = await runFio(store, round, ["--do_verify=0", "--fsync=64"]);
  if (status !== 0) throw new KeelsonError("INTERNAL", `fio could not write: ${text}`);
}

/** What fio finds wrong, or null. */
export async function fioVerify(store: StoreProcess, round: number): Promise<string | null> {
  const { status, text } = await runFio(store, round, ["--verify_only"]);
  return status === 0 ? null : `fio: ${text}`;
}

function roundPattern(round: number): string {
  return (round + 1).toString(16).padStart(8, "0");
}

async function runFio(store: StoreProcess, round: number, more: readonly string[]) {
  const { uri, daemon } = await openLine(store);
  try {
    const job = [
      ...["--name=cut", "--ioengine=nbd", `--uri=${uri}`, "--rw=randwrite", "--bs=4k"],
      ...[`--size=${fioVolumeBytes}`, "--iodepth=16", `--randseed=${round}`],
      // By its checksum alone a block of an earlier round would do.
      ...["--verify=pattern", `--verify_pattern=0x${roundPattern(round)}%o`],
      ...["--verify_fatal=1", "--verify_state_save=0", "--minimal"],
    ];
    const result = spawnSync("fio", [...job, ...more], { encoding: "utf8", cwd: "/tmp" });
    return { status: result.status, text: `${result.stderr}${result.error ?? ""}`.trim() };
  } finally {
    await endProcess(daemon);
  }
}

/** The store's grant is for one connection, and fio makes several: QEMU's daemon stands between. */
async function openLine(store: StoreProcess): Promise<{ uri: string; daemon: ChildProcess }> {
  const path = `/v1/volumes/${fioVolumeId}/nbd-grants`;
  const grant = await store.call<NbdGrant>("POST", path, { readOnly: false });
  const socket = join(store.run, "fio.sock");
  rmSync(socket, { force: true });
  const server = { type: "unix", path: grant.socket };
  const daemon = await startStorageDaemon(
    { driver: "nbd", server, export: grant.token },
    [
      ...["--nbd-server", `addr.type=unix,addr.path=${socket}`],
      ...["--export", "type=nbd,id=export,node-name=disk,writable=on"],
    ],
    () => existsSync(socket),
  );
  return { uri: `nbd+unix:///disk?socket=${socket}`, daemon };
}
