/**
 * A TFTP client run inside a namespace: `node tftp-client.ts '{"file":..,"windowsize":4,...}'`.
 * Does what tftp-hpa can't (windowsize, EDK2's size probe, loss) and prints one line of JSON.
 */
import { createHash } from "node:crypto";
import { createSocket, type RemoteInfo } from "node:dgram";
import { once } from "node:events";
import { decodePacket, encodePacket } from "#lib/wire/tftp/packet.ts";

export interface TftpRun {
  readonly server: string;
  readonly port?: number;
  readonly file: string;
  readonly mode?: string;
  readonly options?: Record<string, string>;
  /** Answer the OACK with ERROR 8, as EDK2 does to learn a file's size. */
  readonly probe?: boolean;
  /** Data packets to lose the first time they come, by block. */
  readonly lose?: readonly number[];
  /** Acknowledge nothing and count what comes within this time. */
  readonly silentMs?: number;
}

export interface TftpResult {
  readonly error?: { code: number; text: string };
  readonly oack?: Record<string, string>;
  readonly sha256?: string;
  readonly bytes: number;
  readonly packets: number;
  readonly acks: number;
  readonly ports: number[];
}

async function read(run: TftpRun): Promise<TftpResult> {
  const socket = createSocket("udp4");
  socket.bind(0);
  await once(socket, "listening");
  const hash = createHash("sha256");
  const blockBytes = () => Number(oack?.blksize ?? 512);
  const window = () => Number(oack?.windowsize ?? 1);
  const lose = new Set(run.lose ?? []);
  const ports = new Set<number>();
  let oack: Record<string, string> | undefined;
  let [expected, bytes, packets, acks, inWindow] = [1, 0, 0, 0, 0];
  let from: RemoteInfo | undefined;
  const send = (packet: Parameters<typeof encodePacket>[0]) =>
    socket.send(encodePacket(packet), from?.port ?? run.port ?? 69, run.server);
  const ack = (block: number) => {
    acks++;
    inWindow = 0;
    send({ type: "ack", block: block & 0xffff });
  };
  const result = new Promise<TftpResult>((resolve, reject) => {
    const finish = (more: Partial<TftpResult> = {}) => {
      clearTimeout(timer);
      resolve({ bytes, packets, acks, ports: [...ports], ...(oack && { oack }), ...more });
    };
    const timer = setTimeout(
      () => (run.silentMs === undefined ? reject(new Error("time-out")) : finish()),
      run.silentMs ?? 20_000,
    );
    socket.on("message", (message, sender) => {
      const decoded = decodePacket(message);
      if ("malformed" in decoded) return reject(new Error(decoded.malformed));
      const { packet } = decoded;
      packets++;
      ports.add(sender.port);
      from = sender;
      if (packet.type === "error")
        return finish({ error: { code: packet.code, text: packet.text } });
      if (packet.type === "oack") {
        oack = Object.fromEntries(packet.options);
        if (run.probe === true) {
          send({ type: "error", code: 8, text: "User aborted the transfer" });
          return setTimeout(finish, 2500);
        }
        return run.silentMs === undefined ? ack(0) : undefined;
      }
      if (packet.type !== "data" || run.silentMs !== undefined) return;
      if (lose.delete(packet.block)) return;
      if (packet.block !== (expected & 0xffff)) {
        // RFC 7440 section 4: out of order, say what came last in order, once a window.
        if (inWindow >= 0) ack(expected - 1);
        inWindow = -window();
        return;
      }
      if (inWindow < 0) inWindow = 0;
      hash.update(packet.bytes);
      bytes += packet.bytes.length;
      expected++;
      inWindow++;
      const last = packet.bytes.length < blockBytes();
      if (last || inWindow >= window()) ack(expected - 1);
      if (last) finish({ sha256: hash.digest("hex") });
    });
  });
  send({
    type: "rrq",
    file: run.file,
    mode: run.mode ?? "octet",
    options: new Map(Object.entries(run.options ?? {})),
  });
  try {
    return await result;
  } finally {
    socket.close();
  }
}

if (import.meta.main) console.log(JSON.stringify(await read(JSON.parse(process.argv[2]))));
