/**
 * A client of an NBD server on a unix socket: fixed newstyle, simple replies (doc/proto.md of NBD).
 *
 *   connect       greeting, client flags, OPT_GO -> size
 *   read, write   so many requests in one go, then as many replies, in any order
 *   flush         one request, its reply
 */
import { connect, type Socket } from "node:net";
import { KeelsonError } from "#lib/model/errors.ts";
import {
  Command,
  decodeReply,
  encodeGo,
  encodeOption,
  encodeRequest,
  greetingBytes,
  HandshakeFlag,
  InfoType,
  NbdError,
  Option,
  OptionReply,
  optionReplyHeaderBytes,
  replyBytes,
  requestBytes,
} from "#lib/wire/nbd/nbd.ts";
import { ByteReader } from "./byte-reader.ts";

export class NbdClient {
  readonly sizeBytes: number;
  private readonly socket: Socket;
  private readonly reader: ByteReader;

  private constructor(socket: Socket, reader: ByteReader, sizeBytes: number) {
    this.socket = socket;
    this.reader = reader;
    this.sizeBytes = sizeBytes;
  }

  /** NOT_FOUND if the server refuses the export, CANCELLED if the connection ends before. */
  static async connect(path: string, exportName: string): Promise<NbdClient> {
    const socket = connect(path);
    const reader = new ByteReader(socket);
    try {
      await reader.read(greetingBytes);
      const flags = Buffer.alloc(4);
      flags.writeUInt32BE(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes);
      socket.write(flags);
      socket.write(encodeOption(Option.go, encodeGo(exportName)));
      return new NbdClient(socket, reader, await exportSize(reader, exportName));
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  /** All of these ranges, at once. UNAVAILABLE if one of them can't be read. */
  async read(
    ranges: readonly { readonly offset: number; readonly length: number }[],
  ): Promise<Uint8Array[]> {
    const { read: type } = Command;
    ranges.forEach((range, i) => {
      this.socket.write(encodeRequest({ flags: 0, type, cookie: BigInt(i), ...range }));
    });
    const found: Uint8Array[] = [];
    for (let i = 0; i < ranges.length; i++) {
      const { cookie, error } = decodeReply(await this.reader.read(replyBytes));
      const range = ranges[Number(cookie)];
      if (range === undefined || found[Number(cookie)] !== undefined) {
        throw new KeelsonError("PROTOCOL", "NBD: a reply that answers nothing.", {
          operation: "read",
        });
      }
      refuse(error, "read");
      found[Number(cookie)] = await this.reader.read(range.length);
    }
    return found;
  }

  /** Writes `data` at each position, all at once; resolves when all are acknowledged. */
  async write(positions: readonly number[], data: Uint8Array): Promise<void> {
    const { length } = data;
    const all = new Uint8Array(positions.length * (requestBytes + length));
    positions.forEach((offset, i) => {
      const at = i * (requestBytes + length);
      const cookie = BigInt(i);
      all.set(encodeRequest({ flags: 0, type: Command.write, cookie, offset, length }), at);
      all.set(data, at + requestBytes);
    });
    this.socket.write(all);
    await this.replies(positions.length, "write");
  }

  async flush(): Promise<void> {
    const { flush: type } = Command;
    this.socket.write(encodeRequest({ flags: 0, type, cookie: 0n, offset: 0, length: 0 }));
    await this.replies(1, "flush");
  }

  close(): void {
    const { disconnect: type } = Command;
    this.socket.end(encodeRequest({ flags: 0, type, cookie: 0n, offset: 0, length: 0 }));
  }

  private async replies(count: number, operation: string): Promise<void> {
    const bytes = await this.reader.read(count * replyBytes);
    for (let at = 0; at < bytes.length; at += replyBytes) {
      refuse(decodeReply(bytes.subarray(at, at + replyBytes)).error, operation);
    }
  }
}

function refuse(error: number, operation: string): void {
  if (error === NbdError.none) return;
  throw new KeelsonError("UNAVAILABLE", `NBD ${operation}: error ${error}.`, { operation });
}

/** Reads the answers to OPT_GO up to its acknowledgement. */
async function exportSize(reader: ByteReader, exportName: string): Promise<number> {
  let sizeBytes = 0;
  for (;;) {
    const header = Buffer.from(await reader.read(optionReplyHeaderBytes));
    const type = header.readUInt32BE(12);
    const body = Buffer.from(await reader.read(header.readUInt32BE(16)));
    if (type === OptionReply.acknowledged) return sizeBytes;
    if (type !== OptionReply.info) {
      throw new KeelsonError("NOT_FOUND", `NBD export ${exportName} is refused: reply ${type}.`, {
        object: exportName,
      });
    }
    if (body.readUInt16BE(0) === InfoType.export) sizeBytes = Number(body.readBigUInt64BE(2));
  }
}
