/**
 * A private Ethernet segment in user space: each QEMU connects by `-netdev stream` to a unix
 * socket, frames come with a 4-byte length in front, and this hub passes each one to the others.
 * No taps, no privileges, nothing that the host's network sees.
 */
import { mkdirSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { removeStaleSocket } from "#lib/rpc/serve.ts";

export interface Segment {
  /** The hub's socket. */
  readonly path: string;
  /** QEMU's `-netdev` for a port of this segment. */
  netdev(id: string): string;
  /** Frames passed on so far. */
  readonly frames: () => number;
  close(): Promise<void>;
}

const maxFrameBytes = 68_000;

/**
 * Starts a hub that listens on `path` (at most 107 bytes long). A socket left by a killed process is
 * replaced; one that still answers gives PORT_IN_USE.
 */
export async function createSegment(path: string): Promise<Segment> {
  mkdirSync(dirname(path), { recursive: true });
  await removeStaleSocket(path);
  const ports = new Set<Socket>();
  let frames = 0;
  const server: Server = createServer((socket) => {
    ports.add(socket);
    const leave = () => {
      ports.delete(socket);
      socket.destroy();
    };
    socket.on("error", leave);
    socket.on("close", leave);
    const split = frameSplitter((frame) => {
      frames++;
      for (const port of ports) if (port !== socket && port.writable) port.write(frame);
    });
    socket.on("data", (bytes: Buffer) => {
      if (!split(bytes)) leave();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  return {
    path,
    netdev: (id) => `stream,id=${id},server=off,addr.type=unix,addr.path=${path}`,
    frames: () => frames,
    close: () =>
      new Promise((resolve) => {
        for (const port of ports) port.destroy();
        server.close(() => resolve());
      }),
  };
}

/**
 * Cuts a byte stream into frames, length prefix included, and gives each to `emit`. The returned
 * function takes the next bytes; false when a length is impossible and the stream must end.
 */
export function frameSplitter(emit: (frame: Buffer) => void): (bytes: Buffer) => boolean {
  let rest: Buffer = Buffer.alloc(0);
  return (bytes) => {
    rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
    let offset = 0;
    while (rest.length - offset >= 4) {
      const length = rest.readUInt32BE(offset);
      if (length === 0 || length > maxFrameBytes) return false;
      if (rest.length - offset < 4 + length) break;
      emit(rest.subarray(offset, offset + 4 + length));
      offset += 4 + length;
    }
    rest = rest.subarray(offset);
    return true;
  };
}
