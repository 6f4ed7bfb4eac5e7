/**
 * DHCP's UDP sockets. With the addon one socket is bound to its interface (SO_BINDTODEVICE), so
 * that broadcasts come in with their interface known and go out through it. Without the addon two
 * plain sockets do it for a single interface: one on any address hears broadcasts, one on the
 * interface's own address sends them (Linux routes a limited broadcast by its source address).
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { closeSync } from "node:fs";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { udpSocket } from "#native";

export interface DhcpSocket {
  readonly boundToInterface: boolean;
  /** Resolves once the datagram was handed to the kernel. */
  send(bytes: Uint8Array, address: string, port: number): Promise<void>;
  close(): void;
}

export interface DhcpSocketOptions {
  readonly interface: string;
  /** This node's address there. */
  readonly address: string;
  readonly port: number;
  readonly receive: (bytes: Uint8Array, from: RemoteInfo) => void;
  /** After opening: the socket is of no more use. */
  readonly failed: (error: Error) => void;
}

/** PORT_IN_USE when another DHCP server holds the port, PERMISSION_DENIED without the right to it. */
export async function openDhcpSocket(options: DhcpSocketOptions): Promise<DhcpSocket> {
  const fd = boundDescriptor(options);
  if (fd !== undefined) {
    const socket = createSocket("udp4");
    try {
      await bound(socket, { fd }, options);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return wrap(socket, [socket], true, options);
  }
  const listener = createSocket({ type: "udp4", reuseAddr: true });
  await bound(listener, { port: options.port, exclusive: true }, options);
  const sender = createSocket({ type: "udp4", reuseAddr: true });
  try {
    await bound(sender, { address: options.address, port: options.port, exclusive: true }, options);
  } catch (error) {
    listener.close();
    throw error;
  }
  return wrap(sender, [listener, sender], false, options);
}

function boundDescriptor(options: DhcpSocketOptions): number | undefined {
  try {
    return udpSocket({ interface: options.interface, port: options.port, broadcast: true });
  } catch (cause) {
    throw listenError(cause, options);
  }
}

function bound(
  socket: Socket,
  where: { fd: number } | { address?: string; port: number; exclusive: boolean },
  options: DhcpSocketOptions,
): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("error", (cause) => {
      socket.close();
      reject(listenError(cause, options));
    });
    socket.bind(where, () => {
      socket.removeAllListeners("error");
      resolve();
    });
  });
}

function wrap(
  sender: Socket,
  sockets: readonly Socket[],
  boundToInterface: boolean,
  options: DhcpSocketOptions,
): DhcpSocket {
  let closed = false;
  sender.setBroadcast(true);
  for (const socket of sockets) {
    socket.on("message", options.receive);
    socket.on("error", (error) => {
      if (!closed) options.failed(error);
    });
  }
  return {
    boundToInterface,
    send: (bytes, address, port) =>
      new Promise((resolve, reject) => {
        sender.send(bytes, port, address, (error) => (error === null ? resolve() : reject(error)));
      }),
    close: () => {
      closed = true;
      for (const socket of sockets) socket.close();
    },
  };
}

/** What a person can do about a UDP or TCP port that can't be had. */
export function listenError(
  cause: unknown,
  options: { readonly interface?: string; readonly port: number },
): KeelsonError {
  const code = (cause as NodeJS.ErrnoException).code;
  const where = `port ${options.port}${options.interface === undefined ? "" : ` on ${options.interface}`}`;
  if (code === "EADDRINUSE") {
    return new KeelsonError("PORT_IN_USE", `Another program already uses ${where}.`, {
      operation: "listen",
      object: where,
      remedy: `Find it with \`ss -lnp 'sport = :${options.port}'\` and stop it, or turn netboot off on this interface.`,
      cause,
    });
  }
  if (code === "EACCES" || code === "EPERM") {
    return new KeelsonError("PERMISSION_DENIED", `No right to listen on ${where}.`, {
      operation: "listen",
      object: where,
      remedy: "Run netboot as its unit does (CAP_NET_BIND_SERVICE), or give a port above 1023.",
      cause,
    });
  }
  return new KeelsonError("UNAVAILABLE", `Cannot listen on ${where}: ${explainError(cause)}.`, {
    operation: "listen",
    object: where,
    cause,
  });
}
