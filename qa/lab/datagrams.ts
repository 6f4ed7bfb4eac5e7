/**
 * Run inside a namespace: sends datagrams from one UDP port and prints what comes back, as hex.
 * Its task is on stdin: `{"port":68,"send":[{"hex":"..","to":"255.255.255.255","port":67}],"replies":1,"waitMs":2000}`
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { udpSocket } from "#native";

export interface DatagramRun {
  readonly port: number;
  /** Bind to it, so that broadcasts work without an address. */
  readonly interface?: string;
  readonly send: readonly { readonly hex: string; readonly to: string; readonly port: number }[];
  /** Ends after this many replies, or after `waitMs`. */
  readonly replies: number;
  readonly waitMs: number;
}

export interface DatagramResult {
  readonly replies: readonly {
    readonly hex: string;
    readonly from: string;
    readonly port: number;
  }[];
}

async function run(task: DatagramRun): Promise<DatagramResult> {
  const socket = createSocket({ type: "udp4", reuseAddr: true });
  const fd =
    task.interface === undefined
      ? undefined
      : udpSocket({
          interface: task.interface,
          port: task.port,
          broadcast: true,
          reuse: true,
        });
  // A descriptor is bound at once, before bind returns.
  const listening = once(socket, "listening");
  socket.bind(fd === undefined ? { port: task.port } : { fd });
  await listening;
  socket.setBroadcast(true);
  const replies: { hex: string; from: string; port: number }[] = [];
  const enough = new Promise<void>((resolve) => {
    socket.on("message", (bytes, from) => {
      replies.push({ hex: bytes.toString("hex"), from: from.address, port: from.port });
      if (replies.length >= task.replies) resolve();
    });
  });
  for (const { hex, to, port } of task.send) socket.send(Buffer.from(hex, "hex"), port, to);
  await Promise.race([enough, sleep(task.waitMs)]);
  socket.close();
  return { replies };
}

if (import.meta.main) {
  console.log(JSON.stringify(await run(JSON.parse(readFileSync(0, "utf8")))));
  process.exit(0);
}
