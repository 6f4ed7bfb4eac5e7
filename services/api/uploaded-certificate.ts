/** A certificate that a person brings: what is wrong with it is said before anything changes. */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { createSecureContext } from "node:tls";
import { KeelsonError } from "#lib/model/errors.ts";
import type { CertificateFacts } from "./tls-schema.ts";

export interface CheckedCertificate {
  readonly certificates: readonly X509Certificate[];
  /** PEM, in order. */
  readonly chain: string;
  /** PEM, PKCS #8. */
  readonly key: string;
}

const mostCertificates = 10;
const leastRsaBits = 2048;
const curves: Record<string, string> = {
  prime256v1: "P-256",
  secp384r1: "P-384",
  secp521r1: "P-521",
};
/** RFC 5280 section 4.2.1.12. */
const serverAuth = "1.3.6.1.5.5.7.3.1";
const anyUsage = "2.5.29.37.0";

function refuse(message: string, remedy: string, cause?: unknown): KeelsonError {
  return new KeelsonError("INVALID_ARGUMENT", message, {
    operation: "check certificate",
    remedy,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Throws INVALID_ARGUMENT with the first fault. `names` are the node's; empty: any name will do. */
export function checkUpload(
  certificatePem: string,
  keyPem: string,
  names: readonly string[],
  nowMs: number,
): CheckedCertificate {
  const certificates = readChain(certificatePem);
  const key = readKey(keyPem);
  const [leaf] = certificates;
  checkKeyType(key);
  if (leaf.ca) {
    throw refuse(
      `The first certificate, ${nameOf(leaf)}, is a CA's.`,
      "Put the server's own certificate first.",
    );
  }
  if (!leaf.checkPrivateKey(key)) {
    const other = certificates.find((each) => each.checkPrivateKey(key));
    throw refuse(
      `The key is not that of the first certificate, ${nameOf(leaf)}.`,
      other === undefined
        ? "Give the key that the certificate was requested with."
        : `It is that of ${nameOf(other)}: put that one first.`,
    );
  }
  checkOrder(certificates);
  for (const certificate of certificates) checkTime(certificate, nowMs);
  if (leaf.subjectAltName === undefined) {
    throw refuse(
      "The certificate has no names (subjectAltName): browsers refuse it.",
      "Request one with the node's DNS names or addresses in it.",
    );
  }
  const usage = leaf.keyUsage as readonly string[] | undefined;
  if (usage !== undefined && !usage.includes(serverAuth) && !usage.includes(anyUsage)) {
    throw refuse(
      "The certificate is not for servers (extended key usage).",
      "Request one for TLS web server authentication.",
    );
  }
  if (names.length > 0 && !names.some((name) => covers(leaf, name))) {
    throw refuse(
      `The certificate is for ${namesOf(leaf).join(", ")}, and the node is ${names.join(", ")}.`,
      "Give one that has a name of this node, or say that any name will do.",
    );
  }
  const chain = certificates.map((each) => each.toString()).join("");
  const pem = key.export({ type: "pkcs8", format: "pem" }) as string;
  try {
    createSecureContext({ cert: chain, key: pem, minVersion: "TLSv1.2" });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw refuse(`TLS does not take this certificate: ${why}.`, "Give another one.", cause);
  }
  return { certificates, chain, key: pem };
}

function readChain(text: string): X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) {
    throw refuse(
      "There is no certificate in PEM.",
      "It begins with -----BEGIN CERTIFICATE-----; convert others with openssl x509.",
    );
  }
  if (blocks.length > mostCertificates) {
    throw refuse(
      `There are ${blocks.length} certificates.`,
      "Give the server's and those between it and the CA, not a CA bundle.",
    );
  }
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw refuse(`Certificate ${index + 1} is damaged.`, "Copy it again, whole.", cause);
    }
  });
}

function readKey(text: string): KeyObject {
  if (/BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED/.test(text)) {
    throw refuse("The key is encrypted.", "Decrypt it first: openssl pkey -in KEY -out PLAIN.");
  }
  if (!/-----BEGIN (\w+ )?PRIVATE KEY-----/.test(text)) {
    throw refuse("There is no private key in PEM.", "It begins with -----BEGIN PRIVATE KEY-----.");
  }
  try {
    return createPrivateKey(text);
  } catch (cause) {
    throw refuse("The key is damaged.", "Copy it again, whole.", cause);
  }
}

function checkKeyType(key: KeyObject): void {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === "rsa" && (details?.modulusLength ?? 0) >= leastRsaBits) return;
  if (type === "ec" && (details?.namedCurve ?? "") in curves) return;
  throw refuse(
    `Browsers don't take a key of this kind: ${keyTypeOf(key)}.`,
    `Use EC P-256, P-384 or P-521, or RSA of at least ${leastRsaBits} bits.`,
  );
}

function checkOrder(certificates: readonly X509Certificate[]): void {
  for (const [index, issuer] of certificates.entries()) {
    if (index === 0) continue;
    const subject = certificates[index - 1];
    if (subject.checkIssued(issuer) && subject.verify(issuer.publicKey)) continue;
    throw refuse(
      `${nameOf(issuer)} follows ${nameOf(subject)} but did not sign it.`,
      `It was signed by ${issuerOf(subject)}: after each certificate comes the one that signed it.`,
    );
  }
}

function checkTime(certificate: X509Certificate, nowMs: number): void {
  const now = new Date(nowMs).toISOString();
  if (nowMs > certificate.validToDate.getTime()) {
    throw refuse(
      `${nameOf(certificate)} expired at ${certificate.validToDate.toISOString()}; it is ${now} here.`,
      "Renew it, or set the node's clock if that is wrong.",
    );
  }
  if (nowMs < certificate.validFromDate.getTime()) {
    throw refuse(
      `${nameOf(certificate)} is valid from ${certificate.validFromDate.toISOString()}; it is ${now} here.`,
      "Set the node's clock if it is wrong, or wait.",
    );
  }
}

/** True if a client that asks for `name`, a host name or an address, takes the certificate. */
export function covers(certificate: X509Certificate, name: string): boolean {
  return isIP(name) === 0
    ? certificate.checkHost(name, { subject: "never" }) !== undefined ||
        // A node knows its short name only; the certificate has the whole one.
        namesOf(certificate).some((full) => full.startsWith(`${name.toLowerCase()}.`))
    : certificate.checkIP(name) !== undefined;
}

export function namesOf(certificate: X509Certificate): string[] {
  return (certificate.subjectAltName ?? "")
    .split(/, (?=DNS:|IP Address:|URI:|email:|DirName:|othername:|Registered ID:)/)
    .flatMap((entry) => /^(?:DNS|IP Address):(.+)$/.exec(entry)?.[1] ?? [])
    .map((name) => name.replaceAll('"', "").toLowerCase());
}

export function factsOf(certificate: X509Certificate): CertificateFacts {
  return {
    subject: nameOf(certificate),
    issuer: issuerOf(certificate),
    names: namesOf(certificate),
    validFrom: certificate.validFromDate.toISOString(),
    validTo: certificate.validToDate.toISOString(),
    keyType: keyTypeOf(certificate.publicKey),
    serial: certificate.serialNumber,
    fingerprint: certificate.fingerprint256,
  };
}

function keyTypeOf({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): string {
  if (type === "ec") return `EC ${curves[details?.namedCurve ?? ""] ?? details?.namedCurve}`;
  if (type === "rsa") return `RSA ${details?.modulusLength}`;
  return type ?? "unknown";
}

function commonName(distinguished: string | undefined): string | undefined {
  return /(?:^|\n)CN=(.*)/.exec(distinguished ?? "")?.[1];
}

function nameOf(certificate: X509Certificate): string {
  return (
    commonName(certificate.subject) ??
    namesOf(certificate)[0] ??
    `serial ${certificate.serialNumber}`
  );
}

function issuerOf(certificate: X509Certificate): string {
  return commonName(certificate.issuer) ?? certificate.issuer.replaceAll("\n", ", ");
}
