import type { Socket } from "node:net";
import { KeelsonError } from "#lib/model/errors.ts";

/** Takes exact numbers of bytes from a socket, which is paused while nobody wants any. */
export class ByteReader {
  private readonly socket: Socket;
  private parts: Uint8Array[] = [];
  private available = 0;
  private wanted: (() => void) | undefined;
  private ended: Error | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (part: Uint8Array) => {
      this.parts.push(part);
      this.available += part.length;
      if (this.available > 8 << 20) socket.pause();
      this.wanted?.();
    });
    const end = (cause?: Error) => {
      this.ended ??= new KeelsonError("CANCELLED", "The peer closed the connection.", { cause });
      this.wanted?.();
    };
    socket.on("end", () => end());
    socket.on("error", end);
    socket.on("close", () => end());
  }

  /** The next `length` bytes; CANCELLED when the connection ends before they are there. */
  async read(length: number): Promise<Uint8Array> {
    while (this.available < length) {
      if (this.ended !== undefined) throw this.ended;
      this.socket.resume();
      await new Promise<void>((resolve) => {
        this.wanted = resolve;
      });
    }
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const [part] = this.parts;
      const take = Math.min(part.length, length - at);
      bytes.set(part.subarray(0, take), at);
      at += take;
      if (take === part.length) this.parts.shift();
      else this.parts[0] = part.subarray(take);
    }
    this.available -= length;
    return bytes;
  }
}
