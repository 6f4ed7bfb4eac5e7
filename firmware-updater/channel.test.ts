/** A channel that is slow, broken or hostile: a real HTTPS server on loopback. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import {
  fixtureBundle,
  fixtureManifest,
  fixtureParts,
  productionNode,
  productionTrust,
} from "#lib/bundle/bundle.fixture.ts";
import type { Log } from "#lib/service/log.ts";
import { passingCertificate } from "#services/api/certificate.ts";
import { ChannelReader, type Patience } from "./channel.ts";
import { Offers } from "./offers.ts";
import { Spool } from "./spool.ts";

const patience: Patience = {
  ...{ idleMs: 400, indexMs: 1_500, pauseMs: 10, longestPauseMs: 40, retries: 3 },
  ...{ leastBytes: 1_000, paceMs: 500 },
};

type Answer = (request: IncomingMessage, response: ServerResponse) => void;
let server: Server;
let origin: string;
/** By path; a list is used up, its last one stays. */
let answers: Record<string, Answer[]>;
let asked: string[];
let reader: ChannelReader;
const known = getCACertificates("default");

beforeAll(async () => {
  const { key, chain } = await passingCertificate("channel", []);
  setDefaultCACertificates([
    ...known,
    ...chain.split(/(?<=-----END CERTIFICATE-----)\s*/).filter(Boolean),
  ]);
  server = createServer({ key, cert: chain }, (request, response) => {
    asked.push(`${request.url} ${request.headers.range ?? ""}`.trim());
    const list = answers[request.url!] ?? [status(404)];
    (list.length > 1 ? list.shift()! : list[0])(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  setDefaultCACertificates(known);
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  answers = {};
  asked = [];
  reader = new ChannelReader(patience);
});
afterEach(() => reader.close());

const status =
  (code: number, headers = {}): Answer =>
  (_request, response) =>
    void response.writeHead(code, headers).end();
const text =
  (body: string | Buffer, headers = {}): Answer =>
  (_request, response) =>
    void response.writeHead(200, headers).end(body);
const never = new AbortController().signal;
const at = (path: string) => ({ address: `${origin}${path}`, fingerprint: null });
const index = (path = "/index.json") => reader.readIndex(at(path), never);
const indexOf = (...bundles: object[]) => JSON.stringify({ format: 1, bundles });
const entry = { url: "b.kbundle", version: "2026.12.0", sizeBytes: 5, notes: "" };

describe("an index", () => {
  test("is read, its addresses relative to it, its letters whole however they arrive", async () => {
    const bytes = Buffer.from(indexOf({ ...entry, notes: "Überarbeitet für Åse: 漢字" }));
    answers["/sub/index.json"] = [
      (_request, response) => {
        response.writeHead(200);
        const middle = bytes.indexOf(Buffer.from("漢")) + 1;
        response.write(bytes.subarray(0, middle));
        setTimeout(() => response.end(bytes.subarray(middle)), 50);
      },
    ];
    expect((await index("/sub/index.json")).bundles).toEqual([
      { ...entry, url: `${origin}/sub/b.kbundle`, notes: "Überarbeitet für Åse: 漢字" },
    ]);
  });

  test.each<[string, string | Buffer, RegExp]>([
    ["is not JSON", "<html>", /no index/],
    ["is empty", "", /no index/],
    ["is of another format", '{"format":2,"bundles":[]}', /no index/],
    ["is nested without end", "[".repeat(1 << 20), /no index/],
    ["lists too much", indexOf(...Array(101).fill(entry)), /no index/],
    ["lists a version that is none", indexOf({ ...entry, version: "latest" }), /no index/],
    ["lists a size below zero", indexOf({ ...entry, sizeBytes: -1 }), /no index/],
    [
      "leads to http",
      indexOf({ ...entry, url: "http://127.0.0.1/b" }),
      /names http:.*read by https:\/\/ only/,
    ],
    [
      "leads to a file",
      indexOf({ ...entry, url: "file:///etc/shadow" }),
      /names file:.*read by https:\/\/ only/,
    ],
    ["leads nowhere", indexOf({ ...entry, url: "https://[/" }), /is no address/],
  ])("that %s is refused", async (_what, body, message) => {
    answers["/index.json"] = [text(body)];
    await expect(index()).rejects.toThrow(message);
  });

  test("without end is given up at 4 MiB, and the connection with it", async () => {
    let closed = false;
    answers["/index.json"] = [
      (_request, response) => {
        response.writeHead(200).once("close", () => {
          closed = true;
        });
        const more = () => {
          while (!response.destroyed && response.write(Buffer.alloc(65_536, " ")));
        };
        response.on("drain", more);
        more();
      },
    ];
    await expect(index()).rejects.toThrow("The index is larger than 4 MiB.");
    await vi.waitFor(() => expect(closed).toBe(true));
  });

  test("that is small only while it is packed is given up too", async () => {
    const bomb = gzipSync(Buffer.alloc(64 << 20, " "));
    expect(bomb.length).toBeLessThan(100_000);
    answers["/index.json"] = [text(bomb, { "content-encoding": "gzip" })];
    await expect(index()).rejects.toThrow("The index is larger than 4 MiB.");
  });

  test.each<[string, Answer]>([
    ["says nothing", () => {}],
    ["stops in the middle", (_request, response) => void response.writeHead(200).write("{")],
    [
      "sends a letter now and then",
      (_request, response) => {
        response.writeHead(200);
        const timer = setInterval(() => response.write(" "), 100);
        response.once("close", () => clearInterval(timer));
      },
    ],
  ])("from a server that %s ends in time", async (_what, answer) => {
    answers["/index.json"] = [answer];
    const since = performance.now();
    await expect(index()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(performance.now() - since).toBeLessThan(3_000);
  });

  test("is looked for where the server says, five times at most, and only by https", async () => {
    answers["/index.json"] = [status(302, { location: "/elsewhere.json" })];
    answers["/elsewhere.json"] = [text(indexOf(entry))];
    expect((await index()).bundles).toHaveLength(1);
    answers["/loop"] = [status(307, { location: "/loop" })];
    asked = [];
    await expect(index("/loop")).rejects.toThrow(/leads from one address to the next/);
    expect(asked).toHaveLength(6);
    answers["/down"] = [status(301, { location: "http://127.0.0.1/index.json" })];
    await expect(index("/down")).rejects.toThrow(/is not an https:\/\/ address/);
    answers["/broken"] = [status(301, { location: "https://[/" })];
    await expect(index("/broken")).rejects.toThrow(/is no address/);
  });

  test("of a server that no known CA vouches for is not read", async () => {
    const { key, chain } = await passingCertificate("stranger", []);
    const stranger = createServer({ key, cert: chain }, (_request, response) => {
      response.end(indexOf(entry));
    });
    await new Promise<void>((resolve) => stranger.listen(0, "127.0.0.1", resolve));
    const address = `https://127.0.0.1:${(stranger.address() as AddressInfo).port}/`;
    try {
      await expect(reader.readIndex({ address, fingerprint: null }, never)).rejects.toMatchObject({
        code: "UNAVAILABLE",
      });
    } finally {
      stranger.closeAllConnections();
      stranger.close();
    }
  });
});

const content = Buffer.from(
  Array.from({ length: 200_000 }, (_, at) => (at * 7 + (at >> 8)) & 0xff),
);

/** From the asked-for byte on, `count` of them, and then as `end` does. */
const part =
  (count: number, end: (response: ServerResponse) => void): Answer =>
  (request, response) => {
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "bytes=0-")![1]);
    response.writeHead(from === 0 ? 200 : 206, {
      "content-length": content.length - from,
      ...(from === 0
        ? {}
        : { "content-range": `bytes ${from}-${content.length - 1}/${content.length}` }),
    });
    response.write(content.subarray(from, from + count), () => end(response));
  };
const cut = (response: ServerResponse) => void response.socket!.destroy();
const stall = () => {};
const finish = (response: ServerResponse) => void response.end();

async function download(sizeBytes = content.length): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of reader.readBundle(`${origin}/b`, sizeBytes, at("/index.json"), never)) {
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

describe("a bundle", () => {
  test("whose connection is cut, stalls and is refused goes on where it stopped", async () => {
    answers["/b"] = [
      part(70_000, cut),
      part(50_000, stall),
      status(503),
      part(20_000, cut),
      part(content.length, finish),
    ];
    expect((await download()).equals(content)).toBe(true);
    expect(asked.map((line) => line.split("=")[1] ?? "")).toEqual([
      ...["", "70000-", "120000-", "120000-", "140000-"],
    ]);
  });

  test("of which never more comes is given up after some attempts", async () => {
    answers["/b"] = [part(70_000, cut), part(0, cut)];
    await expect(download()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(asked).toHaveLength(4);
  });

  test("that comes a byte at a time is given up too", async () => {
    let sent = 0;
    answers["/b"] = [
      (request, response) =>
        part(0, () => {
          const timer = setInterval(() => {
            response.write(content.subarray(sent, ++sent));
          }, 50);
          response.once("close", () => clearInterval(timer));
        })(request, response),
    ];
    await expect(download()).rejects.toThrow(/sends next to nothing/);
    expect(asked).toHaveLength(4);
  });

  test.each<[string, Answer, RegExp]>([
    ["starts again", text(content), /can't go on with a broken download/],
    [
      "goes on somewhere else",
      status(206, { "content-range": `bytes 5-${content.length - 1}/${content.length}` }),
      /at another place/,
    ],
    ["doesn't say where it goes on", status(206), /at another place/],
    [
      "has another file by now",
      status(206, { "content-range": "bytes 70000-99999/100000" }),
      /has 100000/,
    ],
    ["has less than it said", status(416), /the server has 70000/],
  ])("from a server that %s is not put together", async (_what, second, message) => {
    answers["/b"] = [part(70_000, cut), second];
    await expect(download()).rejects.toThrow(message);
    expect(asked).toHaveLength(2);
  });

  test("of another size than the index says is refused before it is sent", async () => {
    answers["/b"] = [part(content.length, finish)];
    await expect(download(content.length - 1)).rejects.toThrow(
      /says 199999 bytes, and the server has 200000/,
    );
    expect(asked).toHaveLength(1);
  });

  test("that doesn't end is cut off at its size", async () => {
    answers["/b"] = [
      (_request, response) => {
        response.writeHead(200);
        const more = () => {
          while (!response.destroyed && response.write(content));
        };
        response.on("drain", more);
        more();
      },
    ];
    await expect(download()).rejects.toThrow(/the server has more than that/);
  });
});

describe("what a channel offers", () => {
  let folder: string;
  let spool: Spool;
  let offers: Offers;
  const quiet: Log = { error() {}, warn() {}, info() {}, debug() {} };
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "keelson-channel-"));
    spool = new Spool({
      folder: join(folder, "spool"),
      trust: () => productionTrust,
      target: () => productionNode,
      signed: () => {},
      now: () => "2026-11-21T00:00:00.000Z",
    });
    const channel = `${origin}/index.json`;
    offers = new Offers({
      ...{ spool, folders: [], reader, changed: () => {}, log: quiet },
      sources: () => ({ channel, neighbour: null, neighbourFingerprint: null }),
      wanted: (version) => version !== "2026.10.0",
    });
  });
  afterEach(() => {
    offers.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const versions = () => offers.remote().map(({ version }) => version);

  test("is what its index lists now: older ones are not offered, withdrawn ones no longer", async () => {
    const newer = { ...entry, url: "c", version: "2027.1.0" };
    answers["/index.json"] = [
      text(indexOf({ ...entry, version: "2026.10.0" }, entry, newer)),
      text(indexOf(entry)),
      status(500),
      text(indexOf({ ...entry, version: "2026.10.0" })),
    ];
    await offers.check();
    expect(versions()).toEqual(["2026.12.0", "2027.1.0"]);
    await offers.check();
    expect(versions()).toEqual(["2026.12.0"]);
    await offers.check();
    expect(versions(), "a server that is ill withdraws nothing").toEqual(["2026.12.0"]);
    expect(offers.lastCheck.message).toMatch(/status 500/);
    await offers.check();
    expect(versions(), "an old index brings nothing back").toEqual([]);
    expect(offers.lastCheck.message).toBeNull();
  });

  const parts = { ...fixtureParts(), root: Buffer.alloc(300_000, "root ") };
  const good = fixtureBundle({ parts, manifest: fixtureManifest(parts) });
  const flipped = Buffer.from(good);
  flipped[200_000] ^= 1;

  async function fetched(served: Answer[]) {
    answers["/index.json"] = [text(indexOf({ ...entry, url: "b", sizeBytes: good.length }))];
    answers["/b"] = served;
    await offers.check();
    offers.fetch(offers.remote()[0].id);
    await vi.waitFor(() => expect(offers.remote()[0]?.state).not.toBe("fetching"));
    return offers.remote()[0];
  }

  test("is here once all of it came and is as signed", async () => {
    expect(await fetched([text(good)])).toBeUndefined();
    expect(spool.list().map(({ manifest }) => manifest.version)).toEqual(["2026.12.0"]);
  });

  test("is copied no further once it is deleted here", async () => {
    let closed = false;
    answers["/index.json"] = [text(indexOf({ ...entry, url: "b", sizeBytes: good.length }))];
    answers["/b"] = [
      (_request, response) => {
        response.once("close", () => {
          closed = true;
        });
        response.writeHead(200).write(good.subarray(0, 100_000));
      },
    ];
    await offers.check();
    const [{ id }] = offers.remote();
    offers.fetch(id);
    await vi.waitFor(() => expect(offers.remote()[0].receivedBytes).toBeGreaterThan(0));
    expect(offers.forget(id)).toBe(true);
    await vi.waitFor(() => expect(closed).toBe(true));
    await vi.waitFor(() => expect(readdirSync(join(folder, "spool"))).toEqual([]));
    expect(offers.remote()).toEqual([]);
    expect(asked.filter((line) => line.startsWith("/b"))).toHaveLength(1);
  });

  test.each<[string, () => Answer[], RegExp]>([
    ["changed on its way", () => [text(flipped)], /not what its manifest says/],
    [
      "shorter than its index says",
      () => [text(good.subarray(0, 1000), { "content-length": 1000 })],
      /the server has 1000/,
    ],
    ["never complete", () => [text(good.subarray(0, 1000))], /can't go on with a broken download/],
    ["not to be had", () => [status(404)], /status 404/],
  ])("leaves nothing behind when it is %s, and says so", async (_what, served, message) => {
    const offer = await fetched(served());
    expect(offer).toMatchObject({ state: "refused" });
    expect(offer.message).toMatch(message);
    expect(spool.list()).toEqual([]);
    expect(readdirSync(join(folder, "spool"))).toEqual([]);
  });
});
