/**
 * iscsi-target over chunk-store, both as processes, against other people's initiators: libiscsi's
 * tools and QEMU's own. On the machine's loopback, since the initiators need nothing else.
 */
import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { join } from "node:path";
import { unixClient, unwrap } from "#lib/rpc/client.ts";
import type { ChunkStoreApi } from "#services/chunk-store/api.ts";
import type { IscsiTargetApi } from "#services/iscsi-target/api.ts";
import type { ExportsPutInput } from "#services/iscsi-target/schema.ts";
import { eventually, expectEqual, expectMatch, expectTrue } from "./expect.ts";
import { conformance } from "./iscsi-conformance.ts";
import type { Lab, Service } from "./lab.ts";
import { type Outcome, runProgram } from "./program.ts";
import type { Suite } from "./suite.ts";

const mebibyte = 1 << 20;
const base = "iqn.2026-11.org.keelson.lab";
const client = `${base}:client`;
const chap = { user: "lab", secret: "a secret of the lab" };
const mutual = { mutualUser: "keelson", mutualSecret: "another of the target" };

function volumeId(index: number): string {
  return `00000000-0000-4000-8000-${String(index).padStart(12, "0")}`;
}

/** A chunk store and a target on free ports, and what talks to them. */
class StorageNode {
  readonly lab: Lab;
  readonly storeArguments: readonly string[];
  store: Service;
  target: Service;
  portal = "";
  private generation = 0;

  private constructor(
    lab: Lab,
    storeArguments: readonly string[],
    store: Service,
    target: Service,
  ) {
    this.lab = lab;
    this.storeArguments = storeArguments;
    this.store = store;
    this.target = target;
  }

  static async start(lab: Lab, storeSize: string, more: readonly string[] = []) {
    const storeArguments = ["--create", storeSize, ...more];
    const store = await lab.service(undefined, "chunk-store", storeArguments);
    const target = await lab.service(undefined, "iscsi-target", [
      "--store-run",
      store.run,
      "--portal",
      "127.0.0.1:0",
      ...more,
    ]);
    const node = new StorageNode(lab, storeArguments, store, target);
    [node.portal] = (await node.status()).portals;
    return node;
  }

  private api() {
    return unixClient<IscsiTargetApi>(this.target.socket);
  }

  async status() {
    return unwrap(this.api().v1.status.$get());
  }

  async sessions() {
    return (await unwrap(this.api().v1.sessions.$get())).sessions;
  }

  async volume(index: number, sizeBytes: number): Promise<void> {
    const api = unixClient<ChunkStoreApi>(this.store.socket);
    const id = volumeId(index);
    await unwrap(api.v1.volumes[":id"].$put({ param: { id }, json: { sizeBytes } }));
  }

  async export(exports: ExportsPutInput["exports"]): Promise<void> {
    this.generation++;
    const json = { generation: this.generation, exports };
    await unwrap(this.api().v1.exports.$put({ json }));
  }

  url(name: string, more: { credentials?: string; query?: string } = {}): string {
    const credentials = more.credentials === undefined ? "" : `${more.credentials}@`;
    return `iscsi://${credentials}${this.portal}/${base}:${name}/0${more.query ?? ""}`;
  }

  /** Starts the store again over the same device, as systemd would. */
  async restartStore(): Promise<void> {
    await this.store.program.kill();
    const { state, run } = this.store;
    this.store = await this.lab.service(undefined, "chunk-store", this.storeArguments, {
      state,
      run,
    });
  }

  /** Kills the target and starts it again on the same port, without anybody putting exports. */
  async restartTarget(): Promise<void> {
    await this.target.program.kill();
    const { state, run } = this.target;
    const flags = ["--store-run", this.store.run, "--portal", this.portal];
    this.target = await this.lab.service(undefined, "iscsi-target", flags, { state, run });
  }
}

function run(command: string, ...args: string[]): Promise<Outcome> {
  return runProgram(command, args, { allowFailure: true, timeoutMs: 60_000 });
}

function succeed(outcome: Outcome): string {
  const text = outcome.stdout + outcome.stderr;
  if (outcome.code !== 0) throw new Error(`exit ${outcome.code}:\n${text}`);
  return text;
}

/** Debian's libiscsi-bin has no iscsi-dd: QEMU's initiator copies from LUN to LUN. */
function copyDisk(from: string, to: string, ...options: string[]): Promise<Outcome> {
  return run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", ...options, from, to);
}

async function qemuIo(url: string, ...commands: string[]): Promise<Outcome> {
  const args = ["-f", "raw", ...commands.flatMap((command) => ["-c", command]), url];
  const outcome = await run("qemu-io", ...args);
  // qemu-io exits 0 when a pattern doesn't match.
  if (/verification failed/i.test(outcome.stdout + outcome.stderr)) {
    throw new Error(outcome.stdout + outcome.stderr);
  }
  return outcome;
}

async function libiscsi(lab: Lab, node: StorageNode): Promise<void> {
  const exported = (index: number, name: string) => ({
    id: name,
    iqn: `${base}:${name}`,
    volumeId: volumeId(index),
  });
  for (const index of [1, 2, 3]) await node.volume(index, 64 * mebibyte);
  const all = [
    { ...exported(1, "one"), initiators: [client] },
    { ...exported(2, "two"), initiators: [client] },
    { ...exported(3, "secret"), initiators: [client], chap: { ...chap, ...mutual } },
  ];
  await node.export(all);

  await lab.test("iscsi-ls lists what the initiator may see, and nothing to another", async () => {
    const seen = succeed(await run("iscsi-ls", "-i", client, `iscsi://${node.portal}`));
    for (const { iqn } of all) expectMatch(seen, new RegExp(`Target:${iqn} `), "iscsi-ls");
    const other = succeed(await run("iscsi-ls", "-i", `${base}:other`, `iscsi://${node.portal}`));
    expectEqual(other.includes("Target:"), false, "another initiator sees targets");
  });

  await lab.test("iscsi-inq and iscsi-readcapacity16 know the disk", async () => {
    const inquiry = succeed(await run("iscsi-inq", "-i", client, node.url("one")));
    expectMatch(inquiry, /Vendor:KEELSON/, "iscsi-inq");
    expectMatch(inquiry, /Peripheral Qualifier:CONNECTED/, "iscsi-inq");
    const serial = succeed(
      await run("iscsi-inq", "-i", client, "-e", "1", "-c", "128", node.url("one")),
    );
    expectMatch(serial, new RegExp(volumeId(1).replaceAll("-", "")), "serial page");
    const capacity = succeed(await run("iscsi-readcapacity16", "-i", client, node.url("one")));
    expectMatch(capacity, new RegExp(`Total size:${64 * mebibyte}`), "capacity");
    expectMatch(capacity, /LBPME:1 LBPRZ:1/, "capacity");
  });

  await lab.test("an initiator that isn't on the list doesn't get in", async () => {
    const outcome = await run("iscsi-inq", "-i", `${base}:other`, node.url("one"));
    expectTrue(outcome.code !== 0, "it got in");
    expectMatch(outcome.stderr + outcome.stdout, /authorization|failed/i, "its message");
  });

  await lab.test("wrong and right CHAP, one way and mutual", async () => {
    const attempt = (credentials: string | undefined, query = "") =>
      run(
        "iscsi-inq",
        "-i",
        client,
        node.url("secret", { ...(credentials === undefined ? {} : { credentials }), query }),
      );
    expectTrue((await attempt(undefined)).code !== 0, "it got in without CHAP");
    expectTrue((await attempt("lab%a secret of the lob")).code !== 0, "a wrong secret got in");
    expectTrue((await attempt("lob%a secret of the lab")).code !== 0, "a wrong user got in");
    succeed(await attempt("lab%a secret of the lab"));
    const proof = "?target_user=keelson&target_password=another of the target";
    succeed(await attempt("lab%a secret of the lab", proof));
    const wrong = "?target_user=keelson&target_password=another of the torget";
    const impostor = await attempt("lab%a secret of the lab", wrong);
    expectTrue(impostor.code !== 0, "the initiator took a wrong proof of the target");
    const { authentication } = (await node.status()).loginFailures;
    expectTrue(authentication >= 2, `${authentication} failures were counted`);
  });

  // From here on QEMU, which names itself, may use them.
  await node.export(all.map((entry) => ({ ...entry, openToLoopback: true })));

  await lab.test("a disk is copied to another; both read the same, byte for byte", async () => {
    const [one, two] = [node.url("one"), node.url("two")];
    succeed(
      await qemuIo(one, "write -P 0x5a 0 1M", "write -P 0x33 5M 64k", "write -P 7 66977792 128k"),
    );
    succeed(await copyDisk(one, two));
    succeed(await run("qemu-img", "compare", "-f", "raw", "-F", "raw", one, two));
    succeed(
      await qemuIo(two, "read -P 0x5a 0 1M", "read -P 0x33 5M 64k", "read -P 7 66977792 128k"),
    );
    succeed(await qemuIo(two, "write -P 8 5M 512"));
    const differ = await run("qemu-img", "compare", "-f", "raw", "-F", "raw", one, two);
    expectEqual(differ.code, 1, "comparing disks that differ");
  });

  await lab.test("QEMU's initiator: flush, discard, zeroes, many requests at once", async () => {
    const url = node.url("one");
    succeed(
      await qemuIo(
        url,
        "write -P 1 0 8M",
        "flush",
        "discard 1M 2M",
        "write -z 4M 1M",
        "write -f -P 9 512 512",
        "read -P 1 0 512",
        "read -P 9 512 512",
        "read -P 0 1M 2M",
        "read -P 1 3M 1M",
        "read -P 0 4M 1M",
        ...Array.from({ length: 16 }, (_, index) => `aio_write -P ${index + 20} ${8 + index}M 1M`),
        "aio_flush",
        ...Array.from({ length: 16 }, (_, index) => `read -P ${index + 20} ${8 + index}M 1M`),
      ),
    );
  });

  await lab.test("header digests", async () => {
    succeed(
      await run("iscsi-inq", "-i", client, node.url("one", { query: "?header_digest=crc32c" })),
    );
  });
}

async function faults(lab: Lab, node: StorageNode): Promise<void> {
  await lab.test("the store is killed under a copy: the copy is whole", async () => {
    const [one, two] = [node.url("one"), node.url("two")];
    succeed(await qemuIo(one, "write -P 0x77 0 64M"));
    // Two seconds: unlimited it may be over before it is seen to begin.
    const copy = copyDisk(one, two, "-r", "32M");
    const moved = async () =>
      (await node.sessions()).reduce((sum, session) => sum + session.bytesWritten, 0);
    await eventually(moved, (bytes) => bytes > 0, "the copy begins", 10_000, 5);
    await node.restartStore();
    expectTrue((await moved()) > 0, "the copy was over before the store was killed");
    succeed(await copy);
    succeed(await run("qemu-img", "compare", "-f", "raw", "-F", "raw", one, two));
  });

  await lab.test("the target is killed: it serves again what it was put before", async () => {
    await node.restartTarget();
    succeed(await qemuIo(node.url("one"), "read -P 0x77 0 1M"));
  });

  await lab.test("any bytes on the port: the target survives, and serves others", async () => {
    const pid = node.target.program.child.pid;
    const [host, port] = node.portal.split(":");
    const throwBytes = (bytes: Uint8Array) =>
      new Promise<void>((resolve) => {
        const socket = connect(Number(port), host, () => socket.end(bytes));
        socket.on("error", () => resolve());
        socket.on("close", () => resolve());
        socket.resume();
        setTimeout(() => socket.destroy(), 300).unref();
      });
    for (let count = 0; count < 150; count++) {
      const bytes = randomBytes(1 + (randomBytes(2).readUInt16LE() % 2000));
      // Half of them look like a log-in.
      if (count % 2 === 0) bytes[0] = 0x43;
      if (count % 4 === 0) bytes.fill(0, 1, Math.min(48, bytes.length));
      await throwBytes(bytes);
    }
    await throwBytes(randomBytes(4 * mebibyte));
    expectEqual(node.target.program.child.exitCode, null, "the target's exit");
    expectEqual(node.target.program.child.pid, pid, "the target's pid");
    succeed(await qemuIo(node.url("one"), "read -P 0x77 0 1M"));
    const left = (await node.sessions()).filter(({ phase }) => phase === "fullFeature");
    expectEqual(left.length, 0, "sessions left over");
  });

  await lab.test("a port in use is named", async () => {
    const state = lab.directory("second-state");
    const outcome = await run(
      process.execPath,
      join(import.meta.dirname, "../../services/iscsi-target/main.ts"),
      "--state",
      state,
      "--run",
      lab.directory("second-run"),
      "--portal",
      node.portal,
    );
    expectEqual(outcome.code, 1, "exit");
    expectMatch(outcome.stderr, new RegExp(`Cannot listen on ${node.portal}`), "its message");
  });
}

async function fullStore(lab: Lab): Promise<void> {
  await lab.test(
    "a full store: writes fail with 27h/07h, reads go on, a discard helps",
    async () => {
      const node = await StorageNode.start(lab, "64M");
      await node.volume(1, 256 * mebibyte);
      await node.export([
        { id: "full", iqn: `${base}:full`, volumeId: volumeId(1), openToLoopback: true },
      ]);
      const url = node.url("full");
      succeed(await qemuIo(url, "write -P 0x11 0 8M"));
      let failed = "";
      for (let at = 8; at < 128 && failed === ""; at += 8) {
        const outcome = await qemuIo(url, `write -P 0x22 ${at}M 8M`);
        if (outcome.code !== 0 || /failed/i.test(outcome.stdout + outcome.stderr)) {
          failed = outcome.stdout + outcome.stderr;
        }
      }
      // QEMU makes ENOSPC of DATA PROTECT / SPACE ALLOCATION FAILED WRITE PROTECT only.
      expectMatch(failed, /No space left on device|SPACE_ALLOCATION_FAILED|0x2707/i, "the error");
      succeed(await qemuIo(url, "read -P 0x11 0 8M"));
      succeed(await qemuIo(url, "discard 0 8M", "flush", "read -P 0 0 8M"));
    },
  );
}

async function withoutAddon(lab: Lab): Promise<void> {
  await lab.test("without the addon: the same disk, slower", async () => {
    const node = await StorageNode.start(lab, "1G", ["--no-native"]);
    await node.volume(1, 64 * mebibyte);
    await node.export([
      { id: "slow", iqn: `${base}:slow`, volumeId: volumeId(1), openToLoopback: true },
    ]);
    expectEqual((await node.status()).driver, "net", "driver");
    const url = node.url("slow");
    succeed(
      await qemuIo(
        url,
        "write -P 0x5a 0 16M",
        "flush",
        "discard 1M 1M",
        "read -P 0x5a 0 1M",
        "read -P 0 1M 1M",
        "read -P 0x5a 2M 14M",
      ),
    );
  });
}

export const iscsi: Suite = {
  name: "iscsi",
  summary: "iscsi-target and chunk-store against libiscsi's tools, its test suite, and QEMU",
  needs: ["iscsi-ls", "iscsi-inq", "iscsi-readcapacity16", "iscsi-test-cu", "qemu-io", "qemu-img"],
  async run(lab) {
    const node = await StorageNode.start(lab, "4G");
    await libiscsi(lab, node);
    await faults(lab, node);
    await fullStore(lab);
    await withoutAddon(lab);
    const suite = (index: number, id: string) => {
      const iqn = `${base}:${id}`;
      return { id, iqn, volumeId: volumeId(index), openToLoopback: true };
    };
    for (const index of [9, 10]) await node.volume(index, 256 * mebibyte);
    await node.export([suite(9, "suite"), { ...suite(10, "chap-suite"), chap }]);
    const credentials = `${chap.user}%${chap.secret}`;
    await conformance(lab, node.url("suite"), node.url("chap-suite", { credentials }));
  },
};
