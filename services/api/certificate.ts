/**
 * The node's own CA and the server certificate that it signs, in the state directory:
 *
 *   ca.key ca.crt           made once; what a client pins at its first log-in
 *   server.key server.crt   made anew when the node got a name or address that they lack
 *
 * The keys are sealed with the node's secret key; those of an older release are sealed when read.
 * Valid from 2020 on: a node or client whose clock battery is dead thinks it is long ago.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { isSealed, type SecretBox } from "#lib/seal/secret-box.ts";
import { writeStateFile } from "#lib/service/state-file.ts";
import type { Identity } from "./certificate-maker.ts";

export interface ServerCertificate {
  readonly key: string;
  /** The server's, then the CA's, in PEM. */
  readonly chain: string;
  /** SHA-256 of the CA's certificate, as `AA:BB:..`. */
  readonly fingerprint: string;
}

const maker = () => import("./certificate-maker.ts");

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
  const ca = await readOrMake(folder, "ca", async () => (await maker()).makeCa(nodeName));
  const wanted = [...new Set(["localhost", "127.0.0.1", "::1", ...names])];
  const known = read(folder, "server");
  const server =
    known !== undefined && covers(known, wanted, ca)
      ? known
      : store(folder, "server", await (await maker()).makeServer(nodeName, wanted, ca));
  return served(server, ca);
}

/** One that is kept nowhere: for a node whose keys can't be opened, so that it can be reached. */
export async function passingCertificate(
  nodeName: string,
  names: readonly string[],
): Promise<ServerCertificate> {
  const { makeCa, makeServer } = await maker();
  const ca = await makeCa(nodeName);
  return served(await makeServer(nodeName, ["localhost", "127.0.0.1", "::1", ...names], ca), ca);
}

function served(server: Identity, ca: Identity): ServerCertificate {
  return {
    key: server.key,
    chain: `${server.certificate}\n${ca.certificate}\n`,
    fingerprint: new X509Certificate(ca.certificate).fingerprint256,
  };
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
  return read(directory, name) ?? store(directory, name, await make());
}

function read(directory: KeyFolder, name: string): Identity | undefined {
  const [keyPath, path] = [
    join(directory.path, `${name}.key`),
    join(directory.path, `${name}.crt`),
  ];
  // The certificate is written last: a key alone is what a power loss left.
  if (!existsSync(path)) return undefined;
  try {
    const certificate = readFileSync(path, "utf8");
    const text = readFileSync(keyPath, "utf8");
    const key = isSealed(text) ? directory.box.open(text, keyPlace(name)) : text;
    if (!new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key))) {
      throw new Error("the key is another certificate's");
    }
    if (!isSealed(text)) writeStateFile(keyPath, directory.box.seal(text, keyPlace(name)));
    return { certificate, key };
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

function store(directory: KeyFolder, name: string, identity: Identity): Identity {
  const sealed = directory.box.seal(identity.key, keyPlace(name));
  writeStateFile(join(directory.path, `${name}.key`), sealed);
  writeStateFile(join(directory.path, `${name}.crt`), identity.certificate);
  return identity;
}

function keyPlace(name: string): string {
  return `tls/${name}.key`;
}

/** Signed by this CA, for all these names. */
function covers(server: Identity, names: readonly string[], ca: Identity): boolean {
  const certificate = new X509Certificate(server.certificate);
  return (
    certificate.verify(new X509Certificate(ca.certificate).publicKey) &&
    names.every((name) =>
      isIP(name) === 0
        ? certificate.checkHost(name) !== undefined
        : certificate.checkIP(name) !== undefined,
    )
  );
}
