/**
 * Import and export: an NBD server whose export names are one-time tokens. The api service asks for
 * a token for a volume and hands `nbd+unix:///TOKEN?socket=PATH` to qemu-img, which reads and writes
 * every format there is.
 */
import { randomBytes } from "node:crypto";
import { chmodSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { VolumeId } from "#lib/model/ids.ts";
import { ByteReader } from "#lib/nbd/byte-reader.ts";
import { removeStaleSocket } from "#lib/rpc/serve.ts";
import type { Log } from "#lib/service/log.ts";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import {
  Command,
  CommandFlag,
  decodeClientFlags,
  decodeGo,
  decodeOptionHeader,
  decodeRequest,
  encodeBlockSizeInfo,
  encodeExport,
  encodeExportInfo,
  encodeGreeting,
  encodeOptionReply,
  encodeReply,
  maxOptionBytes,
  NbdError,
  Option,
  OptionReply,
  optionHeaderBytes,
  type Request,
  replyBytes,
  requestBytes,
  TransmissionFlag,
} from "#lib/wire/nbd/nbd.ts";
import { blockBytes, sectorBytes } from "./limits.ts";
import { NbdVolume } from "./nbd-volume.ts";
import type { NbdGrant } from "./schema.ts";

const grantLifeMs = 5 * 60_000;
const maxGrants = 256;
/** Largest request: what clients assume that don't ask for the limits. */
const maxTransferBytes = 32 << 20;
const advertisedTransferBytes = 1 << 20;
const requestsInFlight = 16;

interface Granted {
  readonly volumeId: VolumeId;
  readonly readOnly: boolean;
  readonly expiresMs: number;
}

export interface NbdServerOptions {
  readonly path: string;
  readonly ringPath: string;
  readonly log: Log;
  /** Wall clock, for the grants' life. */
  readonly nowMs: () => number;
}

export class NbdServer {
  private readonly options: NbdServerOptions;
  private readonly grants = new Map<string, Granted>();
  private readonly sockets = new Set<Socket>();
  private readonly server: Server;

  private constructor(options: NbdServerOptions) {
    this.options = options;
    this.server = createServer((socket) => {
      this.serve(socket).catch((error) => this.ended(socket, error));
    });
  }

  static async listen(options: NbdServerOptions): Promise<NbdServer> {
    await removeStaleSocket(options.path);
    const nbd = new NbdServer(options);
    await new Promise<void>((resolve, reject) => {
      nbd.server.once("error", (cause) =>
        reject(
          new KeelsonError("PORT_IN_USE", `Cannot listen on ${options.path}: ${cause.message}.`, {
            object: options.path,
            cause,
          }),
        ),
      );
      nbd.server.listen(options.path, resolve);
    });
    chmodSync(options.path, 0o660);
    return nbd;
  }

  grant(volumeId: VolumeId, readOnly: boolean): NbdGrant {
    const now = this.options.nowMs();
    for (const [token, { expiresMs }] of this.grants) {
      if (expiresMs <= now || this.grants.size >= maxGrants) this.grants.delete(token);
    }
    const token = randomBytes(16).toString("hex");
    const expiresMs = now + grantLifeMs;
    this.grants.set(token, { volumeId, readOnly, expiresMs });
    const socket = this.options.path;
    return {
      token,
      socket,
      uri: `nbd+unix:///${token}?socket=${encodeURIComponent(socket)}`,
      expires: new Date(expiresMs).toISOString(),
    };
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.server.close(() => resolve());
    });
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }

  private ended(socket: Socket, error: unknown): void {
    socket.destroy();
    if (isKeelsonError(error, "CANCELLED")) return;
    this.options.log.warn(`NBD connection ended: ${explainError(error)}`);
  }

  private async serve(socket: Socket): Promise<void> {
    this.sockets.add(socket);
    socket.on("close", () => this.sockets.delete(socket));
    const reader = new ByteReader(socket);
    socket.write(encodeGreeting());
    const { noZeroes } = decodeClientFlags(await reader.read(4));
    const volume = await this.negotiate(socket, reader, noZeroes);
    if (volume === undefined) {
      socket.end();
      return;
    }
    try {
      await new Transmission(socket, reader, volume.volume, volume.readOnly).run();
    } finally {
      volume.volume.close();
    }
  }

  private async negotiate(
    socket: Socket,
    reader: ByteReader,
    noZeroes: boolean,
  ): Promise<{ volume: NbdVolume; readOnly: boolean } | undefined> {
    for (;;) {
      const { option, length } = decodeOptionHeader(await reader.read(optionHeaderBytes));
      if (length > maxOptionBytes) throw new KeelsonError("PROTOCOL", "NBD: an option too long.");
      const data = await reader.read(length);
      const reply = (type: number, body?: Uint8Array) =>
        socket.write(encodeOptionReply(option, type, body));
      if (option === Option.abort) {
        reply(OptionReply.acknowledged);
        return undefined;
      }
      if (option === Option.exportName) {
        const opened = await this.open(new TextDecoder().decode(data), true);
        if (opened === undefined) return undefined;
        const flags = transmissionFlags(opened.readOnly);
        socket.write(encodeExport(opened.volume.sizeBytes, flags, noZeroes));
        return opened;
      }
      if (option === Option.list) reply(OptionReply.policy);
      else if (option !== Option.go && option !== Option.info) reply(OptionReply.unsupported);
      else {
        const asked = decodeGo(data);
        if (asked === undefined) {
          reply(OptionReply.invalid);
          continue;
        }
        const opened = await this.open(asked.name, option === Option.go);
        if (opened === undefined) {
          reply(OptionReply.unknownExport);
          continue;
        }
        const flags = transmissionFlags(opened.readOnly);
        reply(OptionReply.info, encodeExportInfo(opened.volume.sizeBytes, flags));
        reply(
          OptionReply.info,
          encodeBlockSizeInfo(sectorBytes, blockBytes, advertisedTransferBytes),
        );
        reply(OptionReply.acknowledged);
        if (option === Option.go) return opened;
        opened.volume.close();
      }
    }
  }

  private async open(
    token: string,
    consume: boolean,
  ): Promise<{ volume: NbdVolume; readOnly: boolean } | undefined> {
    const grant = this.grants.get(token);
    if (grant === undefined || grant.expiresMs <= this.options.nowMs()) return undefined;
    if (consume) this.grants.delete(token);
    const volume = await NbdVolume.open(this.options.ringPath, grant.volumeId);
    if (typeof volume !== "object") return undefined;
    return { volume, readOnly: grant.readOnly || volume.readOnly };
  }
}

function transmissionFlags(readOnly: boolean): number {
  const { hasFlags, sendFlush, sendForceUnitAccess, sendTrim, sendWriteZeroes } = TransmissionFlag;
  const common = hasFlags | sendFlush;
  if (readOnly) return common | TransmissionFlag.readOnly;
  return common | sendForceUnitAccess | sendTrim | sendWriteZeroes;
}

/** The transmission phase of one connection: up to 16 requests at once, answered as they finish. */
class Transmission {
  private readonly socket: Socket;
  private readonly reader: ByteReader;
  private readonly volume: NbdVolume;
  private readonly readOnly: boolean;
  private running = 0;
  private wake: (() => void) | undefined;

  constructor(socket: Socket, reader: ByteReader, volume: NbdVolume, readOnly: boolean) {
    this.socket = socket;
    this.reader = reader;
    this.volume = volume;
    this.readOnly = readOnly;
  }

  async run(): Promise<void> {
    for (;;) {
      const request = decodeRequest(await this.reader.read(requestBytes));
      if (request.type === Command.disconnect) break;
      if (request.type === Command.write && request.length > maxTransferBytes) {
        throw new KeelsonError("PROTOCOL", "NBD: a write too long.");
      }
      const data =
        request.type === Command.write ? await this.reader.read(request.length) : undefined;
      await this.slot(requestsInFlight - 1);
      this.running++;
      this.answer(request, data).finally(() => {
        this.running--;
        this.wake?.();
      });
    }
    await this.slot(0);
    this.socket.end();
  }

  /** Until at most `limit` requests run. */
  private async slot(limit: number): Promise<void> {
    while (this.running > limit) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  private async answer(request: Request, data: Uint8Array | undefined): Promise<void> {
    const refused = this.refuse(request);
    if (refused === NbdError.none && request.type === Command.read) {
      const reply = encodeReply(request.cookie, NbdError.none, request.length);
      const status = await this.volume.read(request.offset, reply.subarray(replyBytes));
      this.send(status === BlockStatus.ok ? reply : encodeReply(request.cookie, errorOf(status)));
      return;
    }
    const error = refused !== NbdError.none ? refused : errorOf(await this.change(request, data));
    this.send(encodeReply(request.cookie, error));
  }

  private change(request: Request, data: Uint8Array | undefined): Promise<BlockStatus> {
    const { type, flags, offset, length } = request;
    const durable = (flags & CommandFlag.forceUnitAccess) !== 0;
    if (type === Command.flush) return this.volume.flush();
    if (type === Command.write) return this.volume.write(offset, data!, durable);
    const op = type === Command.trim ? BlockOp.discard : BlockOp.writeZeroes;
    return this.volume.zero(op, offset, length, durable);
  }

  private refuse({ type, offset, length }: Request): NbdError {
    if (type === Command.flush) return NbdError.none;
    const known: number[] = [Command.read, Command.write, Command.trim, Command.writeZeroes];
    if (!known.includes(type)) return NbdError.invalid;
    if (this.readOnly && type !== Command.read) return NbdError.notPermitted;
    if (offset % sectorBytes !== 0 || length % sectorBytes !== 0 || length === 0) {
      return NbdError.invalid;
    }
    if (type === Command.read && length > maxTransferBytes) return NbdError.invalid;
    if (offset + length <= this.volume.sizeBytes) return NbdError.none;
    return type === Command.read ? NbdError.invalid : NbdError.noSpace;
  }

  private send(bytes: Uint8Array): void {
    if (!this.socket.destroyed) this.socket.write(bytes);
  }
}

function errorOf(status: BlockStatus): NbdError {
  switch (status) {
    case BlockStatus.ok:
      return NbdError.none;
    case BlockStatus.noSpace:
      return NbdError.noSpace;
    case BlockStatus.readOnly:
      return NbdError.notPermitted;
    case BlockStatus.outOfRange:
    case BlockStatus.invalid:
      return NbdError.invalid;
    case BlockStatus.badHandle:
      return NbdError.shutdown;
    default:
      return NbdError.io;
  }
}
