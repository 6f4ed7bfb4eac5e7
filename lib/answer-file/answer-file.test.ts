import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parseIpv4Subnet } from "#lib/network/ipv4.ts";
import { parseAnswerFile } from "./answer-file.ts";
import { parseCommentedJson, withoutComments } from "./commented-json.ts";
import { nodeConfigOf, parseNodeConfig } from "./node-config.ts";
import { type AnswersInput, checkAnswers } from "./schema.ts";

const sha512 = `$6$abcdefgh$${"a".repeat(86)}`;
const argon2 = `$argon2id$v=19$m=32768,t=3,p=1$${"a".repeat(22)}$${"b".repeat(43)}`;
const minimal: AnswersInput = {
  version: 1,
  node: { name: "k1" },
  disk: "only",
  admin: { passwordHash: sha512 },
};

describe("JSON with comments", () => {
  test("comments and trailing commas go, strings that look like them stay", () => {
    const text = `{ // one
      "url": "http://x/* no */", /* two
      lines */ "list": [1, 2, ], "quote": "a\\"//b",
    }`;
    expect(parseCommentedJson(text, "f")).toEqual({
      url: "http://x/* no */",
      list: [1, 2],
      quote: 'a"//b',
    });
    expect(withoutComments(text)).toHaveLength(text.length);
  });

  test.each([
    ['{\n  "a": 1\n  "b": 2\n}', /line 3, column 3: '"' stands where '}' or ',' is expected/],
    ['{\n  "a": tru\n}', /line 2, column 8: 't' stands where a value is expected/],
    ["{\n  a: 1\n}", /line 2, column 3: 'a' stands where a name in double quotes/],
    ['{ "a": 1', /line 1, column 9: the file ends where '}' or ','/],
    ['{ "a": 01 }', /column 8: '0' stands where a value/],
    ["{} {}", /column 4: '\{' stands where the end/],
    ["", /line 1, column 1: the file ends where a value/],
  ])("%j is refused with its line", (text, message) => {
    expect(() => parseCommentedJson(text, "f")).toThrow(message);
  });
});

test("the least answer file gets its defaults", () => {
  expect(parseAnswerFile(JSON.stringify(minimal), "f")).toMatchObject({
    store: {},
    erasePools: [],
    network: { bonds: [], lan: { interface: "first", address: "dhcp", dns: [] } },
    timeZone: "UTC",
    ntp: [],
    after: "reboot",
  });
});

const netboot = {
  interface: "eth1",
  mode: "server",
  address: "10.77.0.1/24",
  pool: "10.77.0.100-10.77.0.199",
} as const;
const staticLan = { address: "192.0.2.10/24", gateway: "192.0.2.1" } as const;

test.each<[string, object]>([
  ["argon2id", { admin: { passwordHash: argon2 } }],
  ["no password: the installer makes one up", { admin: undefined }],
  ["netboot of its own", { network: { netboot } }],
  ["proxy on the LAN", { network: { netboot: { interface: "first", mode: "proxy" } } }],
  [
    "server on a static LAN",
    {
      network: {
        lan: { ...staticLan, interface: "eth0" },
        netboot: { interface: "eth0", mode: "server", pool: "192.0.2.100-192.0.2.120" },
      },
    },
  ],
  ["disk by serial", { disk: { serial: "S3RIAL" } }],
  ["disk by size", { disk: { minSize: "64G" } }],
  ["interface by MAC", { network: { lan: { interface: "52:54:00:AB:CD:EF" } } }],
])("accepts %s", (_, change) => {
  expect(checkAnswers({ ...minimal, ...change })).toMatchObject({ ok: true });
});

test.each<[path: string, message: RegExp, change: object]>([
  ["version", /must be 1: this installer reads no other/, { version: 2 }],
  ["version", /is missing; must be 1/, { version: undefined }],
  ["", /'diskk' is not known here; known are: version, node/, { diskk: "only" }],
  ["node.name", /is not a host name/, { node: { name: "Under_score" } }],
  ["node.name", /is not a host name/, { node: { name: "-a" } }],
  ["node", /must be an object with: name/, { node: "k1" }],
  ["disk", /must be one of "only"/, { disk: "any" }],
  ["disk", /is missing; must be one of/, { disk: undefined }],
  ["disk.path", /is not a path below \/dev/, { disk: { path: "vda" } }],
  ["disk", /must be one of/, { disk: { serial: "a", path: "/dev/vda" } }],
  ["store.size", /is not a size/, { store: { size: "big" } }],
  ["store.size", /goes with a new store/, { store: { size: "10G", pool: "p" } }],
  ["store.pool", /also in erasePools/, { store: { pool: "p" }, erasePools: ["p"] }],
  ["erasePools", /must be a list/, { erasePools: "all" }],
  [
    "network.lan.address",
    /not an IPv4|must be "dhcp"/,
    { network: { lan: { address: "10.0.0.1" } } },
  ],
  ["network.lan.address", /not an IPv4|must be/, { network: { lan: { address: "10.0.0.0/24" } } }],
  [
    "network.lan.gateway",
    /only allowed with a static/,
    { network: { lan: { gateway: "10.0.0.1" } } },
  ],
  [
    "network.lan.gateway",
    /not in the subnet/,
    { network: { lan: { address: "10.0.0.2/24", gateway: "10.0.1.1" } } },
  ],
  [
    "network.netboot.mode",
    /"server".*or "proxy"/,
    { network: { netboot: { ...netboot, mode: "dhcp" } } },
  ],
  [
    "network.netboot.mode",
    /needs a static address/,
    { network: { netboot: { interface: "first", mode: "server", pool: netboot.pool } } },
  ],
  [
    "network.netboot.address",
    /is missing; an interface of its own/,
    { network: { netboot: { ...netboot, address: undefined } } },
  ],
  [
    "network.netboot.pool",
    /not in the subnet/,
    { network: { netboot: { ...netboot, pool: "10.77.1.1-10.77.1.9" } } },
  ],
  [
    "network.netboot.pool",
    /holds this node's own/,
    { network: { netboot: { ...netboot, pool: "10.77.0.1-10.77.0.9" } } },
  ],
  [
    "network.netboot.pool",
    /is not a range/,
    { network: { netboot: { ...netboot, pool: "10.77.0.9-10.77.0.2" } } },
  ],
  ["timeZone", /is not a time zone/, { timeZone: "Middle/Earth" }],
  ["ntp", /must be a list/, { ntp: "pool.ntp.org" }],
  ["admin", /must be an object with: passwordHash/, { admin: null }],
  ["admin.passwordHash", /plain passwords are refused/, { admin: { passwordHash: "hunter2" } }],
  ["admin.passwordHash", /plain passwords are refused/, { admin: { passwordHash: "$1$a$b" } }],
  ["after", /must be "reboot" or "poweroff"/, { after: "halt" }],
])("refuses %s: %s", (path, message, change) => {
  const result = checkAnswers({ ...minimal, ...change });
  if (result.ok) throw new Error("accepted");
  const problem = result.problems.find((each) => each.path === path);
  expect(result.problems.map((each) => each.path)).toContain(path);
  expect(problem!.message).toMatch(message);
});

test("a refused password is not repeated in the message", () => {
  const text = JSON.stringify({ ...minimal, admin: { passwordHash: "hunter2" } });
  expect(() => parseAnswerFile(text, "f")).toThrow(/^(?!.*hunter2)/s);
});

test.each([
  ["10.77.0.1/24", { first: 0x0a4d0001, last: 0x0a4d00fe, prefix: 24 }],
  ["192.0.2.9/30", { first: 0xc0000209, last: 0xc000020a, prefix: 30 }],
  ["10.0.0.1/31", undefined],
  ["10.0.0.1", undefined],
  ["10.0.0.1/24/8", undefined],
  ["10.0.0.256/24", undefined],
])("subnet of %s", (text, expected) => {
  const subnet = parseIpv4Subnet(text);
  if (expected === undefined) expect(subnet).toBeUndefined();
  else expect(subnet).toMatchObject(expected);
});

describe("node.json", () => {
  const config = nodeConfigOf(parseAnswerFile(JSON.stringify(minimal), "f"), {
    id: "4f0c1de2-0b7a-4a51-9c57-2f6d1f7a9e10",
    adminHash: "$6$x$y",
    storeDevice: "/dev/disk/by-partuuid/x",
    imageVersion: "2026.11.0",
  });

  test("what the installer writes, node-setup reads", () => {
    expect(parseNodeConfig(JSON.stringify(config), "node.json")).toEqual(config);
  });

  test.each([
    ["{", /is not valid JSON/],
    [JSON.stringify({ ...config, version: 9 }), /has version 9; this image reads 1/],
    [JSON.stringify({ ...config, store: undefined }), /store/],
  ])("%j is refused", (text, message) => {
    expect(() => parseNodeConfig(text, "node.json")).toThrow(message);
  });
});

test("every example of the guide is a good answer file", () => {
  const guide = readFileSync(new URL("../../docs/guide/install.md", import.meta.url), "utf8");
  const examples = [...guide.matchAll(/```jsonc\n(.*?)```/gs)].map(([, text]) => text);
  expect(examples.length).toBeGreaterThanOrEqual(2);
  for (const example of examples) parseAnswerFile(example, "example");
});
