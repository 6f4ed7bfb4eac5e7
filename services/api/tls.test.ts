/** Certificates by OpenSSL, checked by real clients: openssl s_client, curl and Node's own TLS. */
import { execFile, execFileSync, spawn } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { password, TestNode } from "./platform.fixture.ts";
import type { Condition } from "./schema.ts";
import type { Tls } from "./tls-schema.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-tls-"));
const at = (name: string) => join(folder, name);
const read = (name: string) => readFileSync(at(name), "utf8");
let nowMs = Date.now();
const started = performance.now();
const node = new TestNode({
  bootMs: () => Math.round(performance.now() - started),
  now: () => new Date(nowMs).toISOString(),
});

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
}

const days = (count: number) =>
  new Date(Date.now() + count * 86_400_000).toISOString().replaceAll(/[-:T]|\.\d+/g, "");

/** `issuer` null: signs itself. */
function issue(
  name: string,
  issuer: string | null,
  options: {
    ca?: boolean;
    names?: string;
    from?: number;
    to?: number;
    key?: string[];
    usage?: string;
  },
): void {
  const key = options.key ?? ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
  openssl("genpkey", ...key, "-out", `${name}.key`);
  openssl("req", "-new", "-key", `${name}.key`, "-subj", `/CN=${name}`, "-out", `${name}.csr`);
  const extensions = [
    `basicConstraints=critical,CA:${options.ca === true ? "TRUE" : "FALSE"}`,
    ...(options.ca === true ? [] : [`extendedKeyUsage=${options.usage ?? "serverAuth"}`]),
    ...(options.names === undefined ? [] : [`subjectAltName=${options.names}`]),
  ];
  writeFileSync(at(`${name}.ext`), `${extensions.join("\n")}\n`);
  const self = issuer === null;
  writeFileSync(at("ca.cnf"), caConfiguration(folder));
  for (const file of ["index.txt", "index.txt.attr"]) writeFileSync(at(file), "");
  openssl(
    ...["ca", "-batch", "-config", "ca.cnf", "-rand_serial", "-notext", "-in", `${name}.csr`],
    ...(self ? ["-selfsign", "-keyfile", `${name}.key`] : ["-cert", `${issuer}.crt`]),
    ...(self ? [] : ["-keyfile", `${issuer}.key`]),
    ...["-extfile", `${name}.ext`, "-out", `${name}.crt`, "-md", "sha256"],
    ...["-startdate", days(options.from ?? -1), "-enddate", days(options.to ?? 90)],
  );
}

function caConfiguration(directory: string): string {
  return [
    ...["[ca]", "default_ca=d", "[d]", `dir=${directory}`, `database=${directory}/index.txt`],
    ...[
      `new_certs_dir=${directory}`,
      `serial=${directory}/serial`,
      "policy=p",
      "unique_subject=no",
      "[p]",
      "commonName=supplied",
    ],
  ].join("\n");
}

/** The node knows its short name only. */
const names = `DNS:${hostname()}.example.org,DNS:keelson.example.org,IP:127.0.0.1`;

beforeAll(async () => {
  issue("root", null, { ca: true, to: 3650 });
  issue("middle", "root", { ca: true, to: 1000 });
  issue("leaf", "middle", { names });
  issue("soon", "middle", { names, from: -300, to: 10 });
  issue("expired", "middle", { names, from: -300, to: -2 });
  issue("future", "middle", { names, from: 5, to: 90 });
  issue("nameless", "middle", {});
  issue("stranger", "middle", { names: "DNS:other.example.org" });
  issue("client", "middle", { names, usage: "clientAuth" });
  issue("ed", "middle", { names, key: ["-algorithm", "ED25519"] });
  const weak = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
  issue("weak", "middle", { names, key: weak });
  issue("rsa", "middle", {
    names,
    key: ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
  });
  openssl("pkey", "-in", "leaf.key", "-aes256", "-passout", "pass:x", "-out", "locked.key");
  openssl("ec", "-in", "leaf.key", "-out", "sec1.key");
  await node.start();
});
afterAll(async () => {
  await node.remove();
  rmSync(folder, { recursive: true });
});

const chain = (...parts: string[]) => parts.map((name) => read(`${name}.crt`)).join("");
const put = (certificate: string, key: string, more: object = {}) =>
  node.call("PUT", "/settings/tls", { certificate, key, ...more });
const port = () => new URL(node.https).port;

/** What a client prints; the server is in this process, so it isn't waited for by standing still. */
function client(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { timeout: 20_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout + stderr);
      else reject(new Error(`${error.message} ${stderr}`));
    });
    child.stdin?.end();
  });
}

/** The chain that a client is shown, leaf first, by common name. */
function shown(): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port: Number(port()), rejectUnauthorized: false });
    socket.once("error", reject);
    socket.once("secureConnect", () => {
      const found: string[] = [];
      let certificate = socket.getPeerCertificate(true);
      while (!found.includes(certificate.subject.CN as string)) {
        found.push(certificate.subject.CN as string);
        certificate = certificate.issuerCertificate ?? certificate;
      }
      socket.destroy();
      resolve(found);
    });
  });
}

const condition = async (code: string): Promise<Condition | undefined> =>
  (await node.call("GET", `/conditions?code=${code}`)).body[0];

describe("the node's own CA", () => {
  test("its certificate is sealed at rest, mode 0600, and told with what it covers", async () => {
    const tls = (await node.call("GET", "/settings/tls")).body as Tls;
    expect(tls).toMatchObject({ source: "own", uploadedAt: null });
    expect(tls.certificate.names).toEqual(expect.arrayContaining(["localhost", "127.0.0.1"]));
    expect(tls.names.every(({ covered }) => covered)).toBe(true);
    for (const name of ["ca.key", "server.key"]) {
      const path = join(node.state, "api", "tls", name);
      expect(readFileSync(path, "utf8")).toMatch(/^sealed:1:/);
      expect(statSync(path).mode & 0o777).toBe(0o600);
    }
    expect(node.holding("PRIVATE KEY")).toEqual([]);
  });

  test("its certificate, once trusted, is enough for curl and openssl", async () => {
    const tls = (await node.call("GET", "/settings/tls")).body as Tls;
    writeFileSync(at("own-ca.pem"), tls.caCertificate);
    const curl = ["-sS", "--cacert", at("own-ca.pem"), `${node.https}/api/v1/ping`];
    expect(await client("curl", curl)).toBe('{"status":"ok"}');
    expect(
      await client("openssl", [
        "s_client",
        "-connect",
        `127.0.0.1:${port()}`,
        "-CAfile",
        at("own-ca.pem"),
        "-verify_ip",
        "127.0.0.1",
        "-brief",
      ]),
    ).toMatch(/Verification: OK/);
  });
});

describe("an own certificate", () => {
  test.each<[string, () => [string, string], RegExp]>([
    ["no certificate", () => ["", read("leaf.key")], /no certificate in PEM/],
    ["no key", () => [chain("leaf"), "x"], /no private key in PEM/],
    [
      "a damaged certificate",
      () => [chain("leaf").replace("MII", "MIX"), read("leaf.key")],
      /1 is damaged/,
    ],
    ["an encrypted key", () => [chain("leaf"), read("locked.key")], /key is encrypted/],
    ["another's key", () => [chain("leaf", "middle"), read("rsa.key")], /not that of the first/],
    [
      "the CA first",
      () => [chain("middle", "leaf"), read("leaf.key")],
      /first certificate, middle, is a CA's/,
    ],
    ["a gap in the chain", () => [chain("leaf", "root"), read("leaf.key")], /root follows leaf/],
    ["another's issuer", () => [chain("leaf", "leaf"), read("leaf.key")], /did not sign it/],
    ["an expired one", () => [chain("expired"), read("expired.key")], /expired expired at/],
    ["one of tomorrow", () => [chain("future"), read("future.key")], /valid from/],
    ["one without names", () => [chain("nameless"), read("nameless.key")], /has no names/],
    ["another node's", () => [chain("stranger"), read("stranger.key")], /is for other.example.org/],
    ["a client's", () => [chain("client"), read("client.key")], /not for servers/],
    ["an Ed25519 key", () => [chain("ed"), read("ed.key")], /don't take a key of this kind/],
    ["a short RSA key", () => [chain("weak"), read("weak.key")], /RSA 1024/],
    ["a whole CA bundle", () => [chain(...Array(11).fill("leaf")), read("leaf.key")], /11 certif/],
  ])("%s is refused, with nothing changed", async (_, make, message) => {
    const [certificate, key] = make();
    const { status, body } = await put(certificate, key);
    expect([status, body.code]).toEqual([400, "INVALID_ARGUMENT"]);
    expect(body.title).toMatch(message);
    expect(body.detail).toBeTypeOf("string");
    expect(((await node.call("GET", "/settings/tls")).body as Tls).source).toBe("own");
    const [, secret] = read("leaf.key").split("\n");
    expect(JSON.stringify(body)).not.toContain(secret);
  });

  test("is served at once, whole chain, to openssl, curl and Node", async () => {
    const { status, body } = await put(chain("leaf", "middle"), read("leaf.key"));
    expect(status).toBe(200);
    expect(body).toMatchObject({ source: "uploaded", certificate: { subject: "leaf" } });
    expect(await shown()).toEqual(["leaf", "middle"]);
    const curl = [
      ...["-sS", "--cacert", at("root.crt"), "--resolve"],
      ...[`keelson.example.org:${port()}:127.0.0.1`],
      `https://keelson.example.org:${port()}/api/v1/ping`,
    ];
    expect(await client("curl", curl)).toBe('{"status":"ok"}');
    expect(
      await client("openssl", [
        "s_client",
        "-connect",
        `127.0.0.1:${port()}`,
        "-servername",
        "keelson.example.org",
        "-CAfile",
        at("root.crt"),
        "-verify_hostname",
        "keelson.example.org",
        "-brief",
      ]),
    ).toMatch(/Verification: OK/);
    expect(node.holding("PRIVATE KEY")).toEqual([]);
  });

  test("it outlasts a restart; another takes its place; an older form of key is taken", async () => {
    await node.restart();
    expect(await shown()).toEqual(["leaf", "middle"]);
    expect((await put(chain("rsa", "middle", "root"), read("rsa.key"))).status).toBe(200);
    expect(await shown()).toEqual(["rsa", "middle", "root"]);
    expect((await put(chain("leaf", "middle"), read("sec1.key"))).status).toBe(200);
    expect(await shown()).toEqual(["leaf", "middle"]);
  });

  test("a connection that is open keeps its certificate and goes on", async () => {
    const socket = connect({ host: "127.0.0.1", port: Number(port()), rejectUnauthorized: false });
    await new Promise((resolve) => socket.once("secureConnect", resolve));
    await put(chain("rsa", "middle"), read("rsa.key"));
    expect(socket.getPeerCertificate().subject.CN).toBe("leaf");
    const answer = new Promise<string>((resolve) =>
      socket.once("data", (data) => resolve(String(data))),
    );
    socket.write("GET /api/v1/ping HTTP/1.1\r\nhost: localhost\r\n\r\n");
    expect(await answer).toMatch(/^HTTP\/1.1 200/);
    socket.destroy();
  });

  test("for a name that the node doesn't know, if a person says so", async () => {
    const { body } = await put(chain("stranger"), read("stranger.key"), { anyName: true });
    expect(body.source).toBe("uploaded");
    expect(body.names.every(({ covered }: { covered: boolean }) => !covered)).toBe(true);
  });

  test("one that ends soon is a condition, until it is replaced", async () => {
    await put(chain("soon", "middle"), read("soon.key"));
    expect(await condition("TLS_CERTIFICATE_EXPIRING")).toMatchObject({
      status: "true",
      reason: expect.stringContaining("soon is valid until"),
    });
    await put(chain("leaf", "middle"), read("leaf.key"));
    expect(await condition("TLS_CERTIFICATE_EXPIRING")).toBeUndefined();
  });

  test("with the clock at 1970 it is refused with what to do; one that is served stays", async () => {
    nowMs = 3600_000;
    try {
      const token = await node.logIn();
      const bearer = { authorization: `Bearer ${token}` };
      const { status, body } = await node.call(
        "PUT",
        "/settings/tls",
        { certificate: chain("rsa", "middle"), key: read("rsa.key") },
        bearer,
      );
      expect([status, body.detail]).toEqual([400, expect.stringMatching(/Set the node's clock/)]);
      expect(await shown()).toEqual(["leaf", "middle"]);
      await node.restart();
      expect(await shown()).toEqual(["leaf", "middle"]);
    } finally {
      nowMs = Date.now();
    }
    await node.restart();
  });

  test("one action goes back to the own CA, which is the one from before", async () => {
    const own = read("own-ca.pem");
    const { body } = await node.call("DELETE", "/settings/tls");
    expect(body).toMatchObject({ source: "own", caCertificate: own });
    const curl = ["-sS", "--cacert", at("own-ca.pem"), `${node.https}/api/v1/ping`];
    expect(await client("curl", curl)).toBe('{"status":"ok"}');
    await node.restart();
    expect((await shown())[1]).toMatch(/^Keelson CA of/);
    expect((await node.call("DELETE", "/settings/tls")).status).toBe(200);
  });
});

describe("keelson certificate", () => {
  const root = resolve(import.meta.dirname, "../..");
  const keelson = (...args: string[]) =>
    new Promise<{ status: number; out: string }>((done) => {
      const child = spawn(process.execPath, [join(root, "cli/main.ts"), ...args], {
        env: {
          ...process.env,
          NODE_NO_WARNINGS: "1",
          XDG_CONFIG_HOME: at("config"),
          KEELSON_SERVER: "",
          KEELSON_TOKEN: "",
        },
      });
      let out = "";
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text: string) => {
          out += text;
        });
      }
      child.stdin.end(`${password}\n`);
      child.once("close", (status) => done({ status: status ?? -1, out }));
    });
  const logIn = (fingerprint: string) =>
    keelson("login", node.https, "--user", "admin", "--password-stdin", "--trust", fingerprint);
  const fingerprintOf = (name: string) => new X509Certificate(read(`${name}.crt`)).fingerprint256;

  test("show, set, log in anew by the new one, reset", async () => {
    const { caFingerprint } = (await node.call("GET", "/settings/tls")).body as Tls;
    expect(await logIn(caFingerprint)).toMatchObject({ status: 0 });
    expect((await keelson("certificate")).out).toMatch(/the node's own CA/);
    expect((await keelson("certificate", "show", "--ca")).out).toBe(read("own-ca.pem"));
    const wrong = await keelson(
      "certificate",
      "set",
      "--cert",
      at("leaf.crt"),
      "--key",
      at("rsa.key"),
    );
    expect(wrong).toMatchObject({ status: 2, out: /^keelson: The key is not that of .*\n$/ });
    const missing = await keelson(
      "certificate",
      "set",
      "--cert",
      at("none"),
      "--key",
      at("rsa.key"),
    );
    expect(missing.out).toMatch(/none is not there/);
    writeFileSync(at("full.pem"), chain("leaf", "middle"));
    const set = await keelson(
      "certificate",
      "set",
      "--cert",
      at("full.pem"),
      "--key",
      at("leaf.key"),
    );
    expect(set).toMatchObject({ status: 0, out: expect.stringContaining("yours") });
    expect(await keelson("certificate")).toMatchObject({ status: 1 });
    expect(await logIn(fingerprintOf("middle"))).toMatchObject({ status: 0 });
    expect((await keelson("certificate")).out).toMatch(/leaf/);
    expect(await keelson("certificate", "reset")).toMatchObject({ status: 0 });
    expect(await logIn(caFingerprint)).toMatchObject({ status: 0 });
  });
});

describe("another secret key", () => {
  test("a passing certificate, locked secrets by name, nothing in plain text, and back again", async () => {
    const volume = (await node.call("POST", "/volumes", { name: "locked", sizeBytes: 1 << 20 }))
      .body;
    const secret = "planted-secret-4711";
    const made = await node.call("POST", "/exports", {
      name: "locked",
      volumeId: volume.id,
      initiators: ["iqn.2026-11.org.example:a"],
      chap: { kind: "given", user: "u", secret },
    });
    expect(made.body.chapSecret).toBe(secret);
    await put(chain("leaf", "middle"), read("leaf.key"));
    const other = at("other.secret");
    writeFileSync(other, Buffer.alloc(32, 9));
    await node.restart(other);
    const tls = (await node.call("GET", "/settings/tls")).body as Tls;
    expect(tls.source).toBe("passing");
    const ids = ((await node.call("GET", "/conditions?status=true")).body as Condition[]).map(
      ({ id }) => id,
    );
    expect(ids).toEqual(
      expect.arrayContaining([
        `SECRETS_LOCKED:export/${made.body.id}`,
        "TLS_CERTIFICATE_UNUSABLE",
        "SECRETS_WEAKLY_SEALED",
      ]),
    );
    // A change of a locked record doesn't lose its secret.
    await node.call("PATCH", `/exports/${made.body.id}`, {
      initiators: ["iqn.2026-11.org.example:b"],
    });
    await node.restart();
    const after = (await node.call("GET", "/conditions?status=true")).body as Condition[];
    expect(after.filter(({ code }) => code === "SECRETS_LOCKED")).toEqual([]);
    expect(((await node.call("GET", "/settings/tls")).body as Tls).source).toBe("uploaded");
    expect(node.holding(secret)).toEqual([]);
    expect(node.holding("PRIVATE KEY")).toEqual([]);
  });
});
