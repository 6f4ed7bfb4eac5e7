/** Whom a server's certificate comes from, for a trust that a person gives by fingerprint. */
import { createHash } from "node:crypto";
import { connect } from "node:tls";

export interface ServerCa {
  readonly pem: string;
  /** SHA-256 of the certificate: `AB:CD:…`, as a node shows it. */
  readonly fingerprint: string;
}

const timeoutMs = 10_000;

/** The end of the chain that a server shows, unverified. Rejects with what node:tls says. */
export function fetchServerCa(url: string, signal?: AbortSignal): Promise<ServerCa> {
  const { hostname, port } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, "");
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port: Number(port || 443),
      rejectUnauthorized: false,
      timeout: timeoutMs,
    });
    const abort = () => socket.destroy(signal?.reason as Error);
    signal?.addEventListener("abort", abort, { once: true });
    socket.once("close", () => signal?.removeEventListener("abort", abort));
    socket.once("timeout", () =>
      socket.destroy(Object.assign(new Error("no answer in 10 s"), { code: "ETIMEDOUT" })),
    );
    socket.once("error", reject);
    socket.once("secureConnect", () => {
      let certificate = socket.getPeerCertificate(true);
      while (
        certificate.issuerCertificate !== undefined &&
        certificate.issuerCertificate.fingerprint256 !== certificate.fingerprint256
      ) {
        certificate = certificate.issuerCertificate;
      }
      socket.destroy();
      const hex = createHash("sha256").update(certificate.raw).digest("hex").toUpperCase();
      const lines = certificate.raw.toString("base64").match(/.{1,64}/g)!;
      resolve({
        pem: `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`,
        fingerprint: hex.match(/../g)!.join(":"),
      });
    });
  });
}

/** However it was typed: with colons or without, in any case. */
export function sameFingerprint(one: string, other: string): boolean {
  const plain = (text: string) => text.replaceAll(/[^0-9a-f]/gi, "").toUpperCase();
  return plain(one).length === 64 && plain(one) === plain(other);
}
