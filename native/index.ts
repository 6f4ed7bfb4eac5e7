/**
 * The addon's TypeScript face. `native` is undefined when the addon isn't built, can't load
 * (another architecture, a runtime without Node-API) or is turned off by KEELSON_NO_NATIVE=1:
 * each user then takes its fall-back.
 *
 * Calls throw an Error with `code` (ENOENT, ERR_INVALID_ARG_VALUE ...) unless a negative errno is
 * named as a result. File descriptors are plain numbers and belong to the caller.
 */
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

/** Memory that rows name by `slot`. Lives until released and no ArrayBuffer of it is reachable. */
export interface NativeMemory {
  readonly slot: number;
  readonly buffer: ArrayBuffer;
  /** A sealed memfd to pass to a peer, the caller's to close; -1 unless made `shared`. */
  readonly fd: number;
}

export interface Native {
  /** CRC-32C of `bytes`, continued from `initial` (0 to begin). */
  crc32c(bytes: Uint8Array, initial: number): number;
  /** Of the 4096 bytes at each of the first `count` offsets, into `sums`. */
  crc32cBlocks(bytes: Uint8Array, offsets: Int32Array, sums: Uint32Array, count: number): void;
  crc32cTable(bytes: Uint8Array, initial: number): number;
  /** sd_notify(3): false when it could not be sent. */
  notify(state: string): boolean;

  udpSocket(
    interfaceName: string,
    address: string,
    port: number,
    broadcast: boolean,
    reuse: boolean,
  ): number;
  tcpListen(address: string, port: number, backlog: number): number;
  /** The path must not exist; `mode` is the socket's. */
  unixListen(path: string, mode: number): number;
  unixConnect(path: string): number;
  /** A non-blocking descriptor (TCP_NODELAY set on TCP), or -errno. */
  accept(fd: number): number;
  /** `10.0.0.1:3260`, `[::1]:3260`, or `unix`. */
  peerAddress(fd: number): string;
  localAddress(fd: number): string;
  close(fd: number): void;

  /** An eventfd; signal and drain give 0 or -errno. */
  eventCreate(): number;
  eventSignal(fd: number): number;
  eventDrain(fd: number): number;
  /** Bytes sent, or -errno. At most 8 descriptors. */
  sendMessage(fd: number, bytes: Uint8Array, fds: Int32Array): number;
  /** Bytes received (0 at the end), or -errno; descriptors into `fds`, -1 where there is none. */
  receiveMessage(fd: number, bytes: Uint8Array, fds: Int32Array): number;

  memoryCreate(bytes: number, shared: boolean): NativeMemory;
  /** Maps a peer's memfd; it must be sealed against shrinking. `fd` stays the caller's. */
  memoryMap(fd: number, bytes: number): NativeMemory;
  memoryRelease(slot: number): void;

  /** An epoll descriptor. */
  loopCreate(): number;
  /** Adds or changes a watch; `events` are epoll bits (`Poll`), 0 removes it. */
  loopSet(loop: number, fd: number, token: number, events: number): void;
  /**
   * Waits for descriptors or watched rings; gives the count of (token, bits) pairs in `events`.
   * Spins `spinUs` on the rings before it sleeps. Returns at least once a second.
   */
  loopWait(loop: number, events: Int32Array, timeoutMs: number, spinUs: number): number;
  /** Lets `loopWait` watch a ring that this thread consumes, until its slot is released. */
  ringWatch(
    slot: number,
    producerOffset: number,
    consumerOffset: number,
    sleepingOffset: number,
  ): void;

  /**
   * Does `count` rows (`Row`) in order; results are in each (first) row's last word. Rows of slot
   * -1 mean `extra`, which may be any memory.
   */
  rowsRun(rows: Int32Array, count: number, extra?: Uint8Array): void;

  /** Starts the flush thread; gives the eventfd that is readable when a flush has finished. */
  flushStart(): number;
  /** fdatasync of `fd` on the flush thread; false when 64 are under way. */
  flushSubmit(fd: number, token: number): boolean;
  /** Has the kernel begin to write what a flush of `fd` would wait for: a hint, by the same thread. */
  flushBegin(fd: number): void;
  /**
   * Has the kernel read into the page cache: a hint, by the same thread; left if 32 are waiting. Of
   * more than 128 KiB the kernel may leave some.
   */
  readAhead(fd: number, position: number, lengthBytes: number): void;
  /** (token, 0 or errno) pairs of finished flushes into `out` (128 words at least). */
  flushReap(out: Int32Array): number;
}

/** Bits of `loopSet` and `loopWait`, epoll_ctl(2). */
export const Poll = { in: 1, out: 4, error: 8, hangUp: 16, peerClosed: 0x2000 } as const;

/**
 * A row of `rowsRun`: operation | flags, fd, slot, offset in the slot, length, file offset low and
 * high word, result (bytes, or -errno; a checksum's CRC). `more` joins it with the next row.
 */
export const Row = {
  words: 8,
  read: 1,
  write: 2,
  receive: 3,
  send: 4,
  punchHole: 6,
  zeroRange: 7,
  /** Drops clean pages from the page cache, so that the next read comes from the device. */
  forget: 8,
  more: 0x100,
  /** Reads only what is in the page cache; -EAGAIN otherwise. */
  noWait: 0x200,
  /**
   * Reads that follow each other go on at the same time; with `noWait` what of them is not in the
   * page cache, and then they wait.
   */
  together: 0x400,
} as const;

export const Errno = { again: -11, badDescriptor: -9, invalid: -22, noSpace: -28, io: -5 } as const;

/** KEELSON_NATIVE, else build/keelson.node; in a bundle it lies beside (docs/decisions/0060). */
function load(): Native | undefined {
  if ((process.env.KEELSON_NO_NATIVE ?? "") !== "") return undefined;
  const path =
    process.env.KEELSON_NATIVE ?? fileURLToPath(new URL("../build/keelson.node", import.meta.url));
  try {
    return createRequire(import.meta.url)(path) as Native;
  } catch {
    // Not there, or not for this runtime: the fall-back.
    return undefined;
  }
}

export const native: Native | undefined = load();

/** sd_notify(3). Without NOTIFY_SOCKET it does nothing. */
export function notify(state: string): void {
  if (process.env.NOTIFY_SOCKET === undefined) return;
  if (native?.notify(state) === true) return;
  spawnSync("systemd-notify", state.split("\n"), { stdio: "ignore" });
}

export interface UdpSocketOptions {
  /** Receives and sends on this interface only (SO_BINDTODEVICE; root or CAP_NET_RAW). */
  readonly interface?: string;
  /** Default: any IPv4 address. */
  readonly address?: string;
  readonly port: number;
  readonly broadcast?: boolean;
  readonly reuse?: boolean;
}

/** A bound UDP descriptor for dgram's `bind({ fd })`; undefined without the addon. */
export function udpSocket(options: UdpSocketOptions): number | undefined {
  return native?.udpSocket(
    options.interface ?? "",
    options.address ?? "",
    options.port,
    options.broadcast ?? false,
    options.reuse ?? false,
  );
}
