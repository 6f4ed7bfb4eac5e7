/** tftp-hpa, and a client with windows and bad manners, against netboot's TFTP. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { eventually, expectEqual, expectMatch, expectTrue } from "./expect.ts";
import type { Lab, Namespace } from "./lab.ts";
import { netbootNode, nodeAddress } from "./netboot-node.ts";
import type { Suite } from "./suite.ts";
import type { TftpResult, TftpRun } from "./tftp-client.ts";

const loaders = "/usr/lib/ipxe";

function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

async function raw(client: Namespace, run: Omit<TftpRun, "server">): Promise<TftpResult> {
  const script = join(import.meta.dirname, "tftp-client.ts");
  const argument = JSON.stringify({ server: nodeAddress, ...run });
  const { stdout } = await client.run(process.execPath, [
    "--disable-warning=ExperimentalWarning",
    script,
    argument,
  ]);
  return JSON.parse(stdout) as TftpResult;
}

async function fetchByHpa(lab: Lab, client: Namespace, file: string): Promise<string> {
  const target = join(lab.directory("tftp-hpa"), "out");
  const { stdout, stderr } = await client.run(
    "tftp",
    ["-m", "binary", nodeAddress, "-c", "get", file, target],
    { allowFailure: true },
  );
  const said = stdout + stderr;
  if (/error/i.test(said)) throw new Error(said.trim());
  return sha256(target);
}

export const tftp: Suite = {
  name: "tftp",
  summary: "tftp-hpa and a windowed client against netboot's TFTP",
  needs: ["tftp"],
  async run(lab) {
    const segment = await lab.segment();
    const client = await segment.host("client", "10.77.0.50/24");
    const node = await netbootNode(lab, segment, { args: ["--no-http"] });
    const wanted = sha256(join(loaders, "undionly.kpxe"));
    const size = readFileSync(join(loaders, "undionly.kpxe")).length;

    await lab.test("tftp-hpa reads undionly.kpxe byte for byte", async () => {
      expectEqual(await fetchByHpa(lab, client, "undionly.kpxe"), wanted, "sha256");
    });

    await lab.test("a leading slash names the same file", async () => {
      expectEqual(await fetchByHpa(lab, client, "/undionly.kpxe"), wanted, "sha256");
    });

    await lab.test("a path out of the loaders is refused, and told to tftp-hpa", async () => {
      for (const path of ["../../etc/passwd", "/etc/passwd", "ipxe.iso", "undionly.kpxe/.."]) {
        const said = await fetchByHpa(lab, client, path).then(
          () => "it was served",
          (error: Error) => error.message,
        );
        expectMatch(said, /No such loader/, path);
      }
    });

    await lab.test("writing is refused", async () => {
      const { stdout, stderr } = await client.run(
        "tftp",
        [nodeAddress, "-c", "put", "/etc/hostname", "undionly.kpxe"],
        { allowFailure: true },
      );
      expectMatch(stdout + stderr, /read-only/, "tftp-hpa's put");
    });

    await lab.test("blksize 1432 and windowsize 4 are granted and carry the file", async () => {
      const result = await raw(client, {
        file: "undionly.kpxe",
        options: { blksize: "1432", windowsize: "4", tsize: "0" },
      });
      expectEqual(
        result.oack,
        { blksize: "1432", windowsize: "4", tsize: String(size) },
        "the OACK",
      );
      expectEqual(result.sha256, wanted, "sha256");
      const blocks = Math.floor(size / 1432) + 1;
      expectTrue(
        result.acks <= Math.ceil(blocks / 4) + 1,
        `${result.acks} ACKs for ${blocks} blocks`,
      );
    });

    await lab.test("a lost block in a window is sent again", async () => {
      const result = await raw(client, {
        file: "undionly.kpxe",
        options: { blksize: "1024", windowsize: "8" },
        lose: [1, 6, 20],
      });
      expectEqual(result.sha256, wanted, "sha256");
    });

    await lab.test("no options: 512-byte blocks and no OACK", async () => {
      const result = await raw(client, { file: "undionly.kpxe" });
      expectEqual(result.oack, undefined, "OACK");
      expectEqual(result.sha256, wanted, "sha256");
    });

    await lab.test("tsize is told only to those who ask", async () => {
      const result = await raw(client, { file: "undionly.kpxe", options: { blksize: "1024" } });
      expectEqual(result.oack, { blksize: "1024" }, "the OACK");
    });

    await lab.test("EDK2's probe: ERROR 8 ends the transfer at once", async () => {
      const before = (await node.counters())["tftp.transfer.ended-by-client"] ?? 0;
      const result = await raw(client, {
        file: "undionly.kpxe",
        options: { tsize: "0", blksize: "1468", windowsize: "4" },
        probe: true,
      });
      expectEqual(result.oack?.tsize, String(size), "tsize");
      expectEqual(result.packets, 1, "packets within 2.5 s of the ERROR");
      const after = (await node.counters())["tftp.transfer.ended-by-client"] ?? 0;
      expectEqual(after - before, 1, "transfers ended by the client");
    });

    await lab.test("a client that falls silent is repeated to with growing pauses", async () => {
      const result = await raw(client, { file: "undionly.kpxe", silentMs: 4500 });
      expectTrue(
        result.packets >= 3 && result.packets <= 4,
        `${result.packets} packets in 4.5 s; 0, 1, 3 s were expected`,
      );
      expectEqual(result.ports.length, 1, "source ports");
    });

    await lab.test("netascii would corrupt a loader and is refused", async () => {
      const result = await raw(client, { file: "undionly.kpxe", mode: "netascii" });
      expectMatch(result.error?.text ?? "", /octet/, "the ERROR");
    });

    await lab.test("garbage is counted and the server goes on", async () => {
      const before = await node.counters();
      await client.run(process.execPath, [
        "-e",
        `const s = require("dgram").createSocket("udp4");
         const packets = ["", "\\0", "\\0\\x01", "\\0\\x01abc", "\\0\\x09abcd", "\\0\\x05\\0\\0", "\\0\\x04\\0\\x07", "\\0\\x01" + "a".repeat(600) + "\\0octet\\0"];
         let left = packets.length;
         for (const p of packets) s.send(Buffer.from(p, "latin1"), 69, "${nodeAddress}", () => --left || s.close());`,
      ]);
      const malformed = (counters: Record<string, number>) =>
        Object.entries(counters)
          .filter(([name]) => name.startsWith("tftp.malformed"))
          .reduce((sum, [, value]) => sum + value, 0);
      await eventually(
        () => node.counters(),
        (counters) => malformed(counters) - malformed(before) >= 5,
        "malformed packets counted",
      );
      expectEqual(await fetchByHpa(lab, client, "undionly.kpxe"), wanted, "sha256 afterwards");
    });

    await lab.test("single-port mode serves from port 69 alone", async () => {
      const other = await segment.host("single", "10.77.0.2/24");
      await lab.service(other, "netboot", ["--no-http", "--tftp-single-port"]);
      const result = await raw(client, {
        file: "undionly.kpxe",
        options: { windowsize: "4" },
        ...{ server: "10.77.0.2" },
      });
      expectEqual(result.ports, [69], "source ports");
      expectEqual(result.sha256, wanted, "sha256");
    });

    await lab.test("a port in use is named at start", async () => {
      const error = await lab.service(node.host, "netboot", ["--no-http"]).then(
        () => "it started",
        (cause: Error) => cause.message,
      );
      expectMatch(error, /Another program already uses port 69/, "the message");
    });
  },
};
