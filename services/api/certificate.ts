/**
 * The node's own CA and the server certificate that it signs, in the state directory:
 *
 *   ca.key ca.crt           made once; what a client pins at its first log-in
 *   server.key server.crt   made anew when the node got a name or address that they lack
 *
 * The keys are sealed with the node's secret key; those of an older release are sealed when read.
 * Valid from 2020 on: a node or client whose clock battery is dead thinks it is long ago.
 */
// First: x509's container refuses to load without it.
import "reflect-metadata";
import { createHash, X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { isSealed, type SecretBox } from "#lib/seal/secret-box.ts";
import { writeStateFile } from "#lib/service/state-file.ts";

export interface ServerCertificate {
  readonly key: string;
  /** The server's, then the CA's, in PEM. */
  readonly chain: string;
  /** SHA-256 of the CA's certificate, as `AA:BB:..`. */
  readonly fingerprint: string;
}

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const notBefore = new Date("2020-01-01T00:00:00Z");
/** RFC 5280 section 4.1.2.5: no well-defined end. */
const notAfter = new Date("9999-12-31T23:59:59Z");

interface Identity {
  readonly certificate: x509.X509Certificate;
  readonly keys: CryptoKeyPair;
}

/**
 * `names`: DNS names and IP addresses that clients may use. FORMAT_CORRUPT for a damaged file,
 * PERMISSION_DENIED for keys that were sealed with another secret key.
 */
export async function serverCertificate(
  state: string,
  nodeName: string,
  names: readonly string[],
  box: SecretBox,
): Promise<ServerCertificate> {
  const directory = join(state, "tls");
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const folder = { path: directory, box };
  const ca = await readOrMake(folder, "ca", () => makeCa(nodeName));
  const wanted = [...new Set(["localhost", "127.0.0.1", "::1", ...names])];
  const known = await read(folder, "server");
  const server =
    known !== undefined && covers(known.certificate, wanted, ca.certificate)
      ? known
      : await store(folder, "server", await makeServer(nodeName, wanted, ca));
  return served(server, ca);
}

/** One that is kept nowhere: for a node whose keys can't be opened, so that it can be reached. */
export async function passingCertificate(
  nodeName: string,
  names: readonly string[],
): Promise<ServerCertificate> {
  const ca = await makeCa(nodeName);
  return served(await makeServer(nodeName, ["localhost", "127.0.0.1", "::1", ...names], ca), ca);
}

async function served(server: Identity, ca: Identity): Promise<ServerCertificate> {
  return {
    key: await keyPem(server),
    chain: `${server.certificate.toString("pem")}\n${ca.certificate.toString("pem")}\n`,
    fingerprint: fingerprintOf(ca.certificate),
  };
}

export function fingerprintOf(certificate: { readonly rawData: ArrayBuffer }): string {
  const hex = createHash("sha256").update(Buffer.from(certificate.rawData)).digest("hex");
  return hex.toUpperCase().match(/../g)!.join(":");
}

interface KeyFolder {
  readonly path: string;
  readonly box: SecretBox;
}

async function readOrMake(
  directory: KeyFolder,
  name: string,
  make: () => Promise<Identity>,
): Promise<Identity> {
  return (await read(directory, name)) ?? (await store(directory, name, await make()));
}

async function read(directory: KeyFolder, name: string): Promise<Identity | undefined> {
  const [keyPath, path] = [
    join(directory.path, `${name}.key`),
    join(directory.path, `${name}.crt`),
  ];
  // The certificate is written last: a key alone is what a power loss left.
  if (!existsSync(path)) return undefined;
  try {
    const certificate = new x509.X509Certificate(readFileSync(path, "utf8"));
    const text = readFileSync(keyPath, "utf8");
    const plain = isSealed(text) ? directory.box.open(text, keyPlace(name)) : text;
    const pkcs8 = x509.PemConverter.decodeFirst(plain);
    const privateKey = await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, true, ["sign"]);
    const publicKey = await certificate.publicKey.export(algorithm, ["verify"]);
    const keys = { privateKey, publicKey } as CryptoKeyPair;
    if (!isSealed(text)) writeStateFile(keyPath, directory.box.seal(text, keyPlace(name)));
    return { certificate, keys };
  } catch (cause) {
    if (isKeelsonError(cause, "PERMISSION_DENIED")) throw cause;
    throw new KeelsonError("FORMAT_CORRUPT", `The certificate ${path} or its key can't be read.`, {
      operation: "read certificate",
      object: path,
      remedy: `Move ${directory.path} away: new ones are made, and clients must trust them anew.`,
      cause,
    });
  }
}

async function store(directory: KeyFolder, name: string, identity: Identity): Promise<Identity> {
  const sealed = directory.box.seal(await keyPem(identity), keyPlace(name));
  writeStateFile(join(directory.path, `${name}.key`), sealed);
  writeStateFile(join(directory.path, `${name}.crt`), identity.certificate.toString("pem"));
  return identity;
}

function keyPlace(name: string): string {
  return `tls/${name}.key`;
}

async function keyPem({ keys }: Identity): Promise<string> {
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return x509.PemConverter.encode(pkcs8, "PRIVATE KEY");
}

async function makeKeys(): Promise<CryptoKeyPair> {
  return (await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"])) as CryptoKeyPair;
}

async function makeCa(nodeName: string): Promise<Identity> {
  const keys = await makeKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [`Keelson CA of ${nodeName}`] }],
    notBefore,
    notAfter,
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      // Signs servers only, no further CA.
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate, keys };
}

async function makeServer(
  nodeName: string,
  names: readonly string[],
  ca: Identity,
): Promise<Identity> {
  const keys = await makeKeys();
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [nodeName] }],
    issuer: ca.certificate.subject,
    notBefore,
    notAfter,
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: ca.keys.privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({
          type: isIP(value) === 0 ? ("dns" as const) : ("ip" as const),
          value,
        })),
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(ca.certificate.publicKey),
    ],
  });
  return { certificate, keys };
}

/** Signed by this CA, for all these names. */
function covers(
  certificate: x509.X509Certificate,
  names: readonly string[],
  ca: x509.X509Certificate,
): boolean {
  const parsed = new X509Certificate(certificate.toString("pem"));
  const issuer = new X509Certificate(ca.toString("pem"));
  return (
    parsed.verify(issuer.publicKey) &&
    names.every((name) =>
      isIP(name) === 0 ? parsed.checkHost(name) !== undefined : parsed.checkIP(name) !== undefined,
    )
  );
}
