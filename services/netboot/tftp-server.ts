/**
 * Read-only TFTP over the loaders in memory. Each transfer has a socket of its own, as RFC 1350
 * asks, or with `singlePort` all use the well-known one, for firewalls that know no TFTP.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { decodePacket, encodePacket, errorCode, negotiate } from "#lib/wire/tftp/packet.ts";
import type { Counters } from "./counters.ts";
import { listenError } from "./dhcp-socket.ts";
import { type Loaders, loaderNamed } from "./loader.ts";
import { type Step, TftpSession } from "./tftp-session.ts";

export interface TftpOptions {
  readonly host?: string;
  /** 0 = a free one. */
  readonly port: number;
  readonly singlePort: boolean;
  readonly loaders: () => Loaders;
  readonly counters: Counters;
  /** A client began to read `file`. */
  readonly loading: (ip: string, file: string) => void;
  /** A request that was refused, for the client's entry. */
  readonly refused: (ip: string, file: string, why: string) => void;
  readonly failed: (error: Error) => void;
}

/** Sessions together, and of one address: a client in need has one or two. */
const maxSessions = 512;
const maxSessionsPerClient = 8;
/** Ethernet without fragments: 1500 - 20 (IP) - 8 (UDP) - 4 (TFTP). */
const maxBlockBytes = 1468;
const maxWindowBlocks = 64;
const firstTimeoutMs = 1000;
const longestTimeoutMs = 8000;
const maxTimeouts = 6;

interface Transfer {
  readonly session: TftpSession;
  readonly request: string;
  readonly ip: string;
  readonly port: number;
  readonly socket: Socket;
  readonly firstTimeoutMs: number;
  timer: NodeJS.Timeout | undefined;
  timeouts: number;
}

export class TftpServer {
  #options: TftpOptions;
  #socket: Socket;
  #transfers = new Map<string, Transfer>();
  #closed = false;

  private constructor(options: TftpOptions, socket: Socket) {
    this.#options = options;
    this.#socket = socket;
  }

  static async open(options: TftpOptions): Promise<TftpServer> {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve, reject) => {
      socket.once("error", (cause) => reject(listenError(cause, options)));
      socket.bind({ port: options.port, address: options.host ?? "0.0.0.0" }, () => resolve());
    });
    socket.removeAllListeners("error");
    const server = new TftpServer(options, socket);
    socket.on("error", options.failed);
    socket.on("message", (bytes, from) => server.#receive(bytes, from));
    return server;
  }

  get port(): number {
    return this.#socket.address().port;
  }

  get sessions(): number {
    return this.#transfers.size;
  }

  close(): void {
    this.#closed = true;
    for (const [key, transfer] of this.#transfers) this.#end(key, transfer);
    this.#socket.close();
  }

  /** On the well-known port: requests; in single-port mode everything. */
  #receive(bytes: Uint8Array, from: RemoteInfo): void {
    const decoded = decodePacket(bytes);
    const { counters } = this.#options;
    if ("malformed" in decoded) {
      counters.add(`tftp.malformed.${decoded.malformed}`);
      return;
    }
    const key = `${from.address}:${from.port}`;
    const running = this.#transfers.get(key);
    const { packet } = decoded;
    if (packet.type === "rrq") {
      this.#read(packet, from, key, running);
      return;
    }
    if (packet.type === "wrq") {
      counters.add("tftp.refused.write");
      this.#refuse(from, errorCode.accessViolation, "This server is read-only.");
      return;
    }
    if (running !== undefined && this.#options.singlePort) {
      this.#advance(key, running, () => running.session.receive(packet));
      return;
    }
    counters.add("tftp.dropped.no-transfer");
    // An ERROR is never answered with an ERROR (RFC 1350 section 7).
    if (packet.type !== "error") {
      this.#refuse(from, errorCode.unknownTransfer, "There is no such transfer.");
    }
  }

  #read(
    packet: { file: string; mode: string; options: ReadonlyMap<string, string> },
    from: RemoteInfo,
    key: string,
    running: Transfer | undefined,
  ): void {
    const { counters } = this.#options;
    const request = JSON.stringify([packet.file, ...packet.options]);
    if (running !== undefined) {
      // The same request again while nothing was acknowledged: our answer was lost.
      if (running.request === request && running.session.untouched) {
        counters.add("tftp.request.repeated");
        this.#advance(key, running, () => running.session.repeat());
        return;
      }
      this.#end(key, running);
    }
    counters.add("tftp.request");
    const file = packet.file.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 128);
    if (packet.mode !== "octet") {
      counters.add("tftp.refused.mode");
      this.#refuse(from, errorCode.undefined, "Only octet mode is served.");
      return;
    }
    const name = loaderNamed(this.#options.loaders(), packet.file);
    if (name === undefined) {
      counters.add("tftp.refused.file");
      // iPXE of Debian 13 looks for a script beside it first: that is no fault of the boot.
      if (!/(^|\/)autoexec\.ipxe$/.test(file)) {
        this.#options.refused(from.address, file, "no such loader");
      }
      this.#refuse(from, errorCode.fileNotFound, "No such loader here.");
      return;
    }
    const same = [...this.#transfers.values()].filter((other) => other.ip === from.address).length;
    if (this.#transfers.size >= maxSessions || same >= maxSessionsPerClient) {
      // Silence makes firmware ask again; an ERROR would end its boot.
      counters.add("tftp.dropped.busy");
      return;
    }
    const bytes = this.#options.loaders().get(name)!;
    const options = negotiate(packet.options, bytes.length, {
      blockBytes: maxBlockBytes,
      windowBlocks: maxWindowBlocks,
    });
    this.#options.loading(from.address, name);
    const transfer: Transfer = {
      session: new TftpSession(bytes, options),
      request,
      ip: from.address,
      port: from.port,
      socket: this.#options.singlePort ? this.#socket : this.#transferSocket(key),
      firstTimeoutMs: (options.timeoutSeconds ?? 0) * 1000 || firstTimeoutMs,
      timer: undefined,
      timeouts: 0,
    };
    this.#transfers.set(key, transfer);
    this.#advance(key, transfer, () => transfer.session.start());
  }

  #transferSocket(key: string): Socket {
    const socket = createSocket("udp4");
    socket.bind({ port: 0, address: this.#options.host ?? "0.0.0.0" });
    socket.on("error", () => {
      this.#options.counters.add("tftp.socket-error");
      const transfer = this.#transfers.get(key);
      if (transfer?.socket === socket) this.#end(key, transfer);
    });
    socket.on("message", (bytes, from) => {
      const transfer = this.#transfers.get(key);
      if (transfer?.socket !== socket) return;
      if (from.address !== transfer.ip || from.port !== transfer.port) {
        // RFC 1350 section 4: another sender's packet is answered and changes nothing.
        this.#options.counters.add("tftp.dropped.stranger");
        const answer = encodePacket({
          type: "error",
          code: errorCode.unknownTransfer,
          text: "There is no such transfer.",
        });
        socket.send(answer, from.port, from.address);
        return;
      }
      const decoded = decodePacket(bytes);
      if ("malformed" in decoded) {
        this.#options.counters.add(`tftp.malformed.${decoded.malformed}`);
        return;
      }
      this.#advance(key, transfer, () => transfer.session.receive(decoded.packet));
    });
    return socket;
  }

  #advance(key: string, transfer: Transfer, act: () => Step, timedOut = false): void {
    const { send, state } = act();
    for (const packet of send) {
      transfer.socket.send(packet, transfer.port, transfer.ip, (error) => {
        if (error !== null) this.#options.counters.add("tftp.send-error");
      });
    }
    if (state === "done" || state === "failed") {
      this.#options.counters.add(
        state === "done" ? "tftp.transfer.done" : "tftp.transfer.ended-by-client",
      );
      this.#end(key, transfer);
      return;
    }
    // A packet that moved nothing doesn't put off the time-out, so that strays can't hold a session.
    if (send.length === 0) return;
    if (!timedOut) transfer.timeouts = 0;
    clearTimeout(transfer.timer);
    const waitMs = Math.min(
      transfer.firstTimeoutMs * 2 ** transfer.timeouts,
      Math.max(longestTimeoutMs, transfer.firstTimeoutMs),
    );
    transfer.timer = setTimeout(() => this.#timeOut(key, transfer), waitMs);
  }

  #timeOut(key: string, transfer: Transfer): void {
    transfer.timeouts++;
    if (transfer.timeouts > maxTimeouts) {
      this.#options.counters.add("tftp.transfer.timed-out");
      this.#end(key, transfer);
      return;
    }
    this.#options.counters.add("tftp.repeated");
    this.#advance(key, transfer, () => transfer.session.repeat(), true);
  }

  #end(key: string, transfer: Transfer): void {
    clearTimeout(transfer.timer);
    if (this.#transfers.get(key) === transfer) this.#transfers.delete(key);
    if (transfer.socket !== this.#socket) transfer.socket.close();
  }

  #refuse(to: RemoteInfo, code: number, text: string): void {
    if (this.#closed) return;
    this.#socket.send(encodePacket({ type: "error", code, text }), to.port, to.address, (error) => {
      if (error !== null) this.#options.counters.add("tftp.send-error");
    });
  }
}
