import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request as httpRequest, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { unixFetch } from "#lib/rpc/client.ts";
import { closeServer, type Listener, serveUnix } from "#lib/rpc/serve.ts";
import type { BootAnswer } from "#services/api/boot-schema.ts";
import { createApi } from "./api.ts";
import { rangeOf } from "./http-server.ts";
import { NetbootService } from "./service.ts";

const quiet = { error() {}, warn() {}, info() {}, debug() {} };
const mac = "52:54:00:12:34:56";
const san: BootAnswer = {
  action: "san",
  portal: "0.0.0.0:3260",
  iqn: "iqn.2026-11.org.keelson:boot.a",
  lun: 0,
  initiatorIqn: "iqn.2026-11.org.keelson:client.a",
  chap: { user: "a", secret: "topsecret1234" },
};

let folder: string;
let service: NetbootService;
let control: Listener;
let api: Server | undefined;
let answer: unknown;
let reports: { stage: string }[];

async function startService(): Promise<void> {
  service = await NetbootService.start({
    state: join(folder, "state"),
    apiSocket: join(folder, "internal.sock"),
    loaders: join(folder, "loaders"),
    version: "test",
    log: quiet,
    fail: (error) => {
      throw error;
    },
    interfaces: undefined,
    dhcp: null,
    tftp: null,
    http: { host: "127.0.0.1", port: 0, httpsPort: 8443 },
  });
  control = await serveUnix(
    createApi(service, () => {}),
    join(folder, "run/api.sock"),
  );
}

async function startApi(): Promise<void> {
  api = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (request.url === "/v1/boot") {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(answer));
    } else {
      reports.push(JSON.parse(Buffer.concat(chunks).toString()));
      response.writeHead(204).end();
    }
  });
  await new Promise<void>((done) => api!.listen(join(folder, "internal.sock"), () => done()));
}

const base = () => service.addresses().http;
const get = (path: string, init: RequestInit = {}) =>
  fetch(`${base()}${path}`, { redirect: "manual", ...init });
const call = (path: string, init: { method?: string; body?: string } = {}) =>
  unixFetch(join(folder, "run/api.sock"))(`http://unix${path}`, {
    headers: { "content-type": "application/json" },
    ...init,
  });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "netboot-service-"));
  reports = [];
  answer = san;
  api = undefined;
  const loaders = join(folder, "loaders");
  mkdirSync(loaders);
  writeFileSync(join(loaders, "undionly.kpxe"), Buffer.alloc(1000, "bios"));
  writeFileSync(join(loaders, "ipxe.efi"), Buffer.from("0123456789"));
  writeFileSync(join(loaders, "secret.txt"), "not a loader");
  await startApi();
  await startService();
});

afterEach(async () => {
  await control.close();
  await service.stop();
  if (api?.listening) await closeServer(api);
  rmSync(folder, { recursive: true, force: true });
});

describe("boot script", () => {
  test("a known machine: sanboot at the address it reached, never cached, and reported", async () => {
    const response = await get(`/boot.ipxe?mac=${mac}&arch=0`);
    expect(response.headers.get("cache-control")).toBe("no-store");
    const script = await response.text();
    expect(script).toContain("sanboot iscsi:127.0.0.1::3260:0:iqn.2026-11.org.keelson:boot.a");
    expect(script).not.toContain("topsecret");
    await expect.poll(() => reports.map(({ stage }) => stage)).toEqual(["script"]);
    expect(service.clients()[0]).toMatchObject({ mac, action: "san", arch: 0, ip: "127.0.0.1" });
  });

  test("api away: a script that says so and asks again after a pause", async () => {
    await closeServer(api!);
    const script = await (await get(`/boot.ipxe?mac=${mac}`)).text();
    expect(script).toMatch(/cannot boot this machine/);
    expect(script).toMatch(/sleep \d+\nchain /);
    expect(service.status().counters["http.script.api-failed"]).toBe(1);
  });

  test.each([
    ["not JSON's form", { action: "san" }],
    ["an action from the future", { action: "reinstall" }],
    ["a portal with iPXE syntax", { ...san, portal: "1.2.3.4 || reboot" }],
  ])("an answer with %s is refused and waited out", async (_, wrong) => {
    answer = wrong;
    const script = await (await get(`/boot.ipxe?mac=${mac}`)).text();
    expect(script).not.toContain("sanboot");
    expect(script).toContain("unknown form");
  });

  test.each(["", "?mac=", "?mac=hello", "?mac=52:54:00:12:34", "?uuid=x"])(
    "'%s' names no machine: 400 with advice",
    async (query) => {
      const response = await get(`/boot.ipxe${query}`);
      expect(response.status).toBe(400);
      expect(await response.text()).toContain("mac=MAC");
    },
  );

  test("a machine that asks without pause gets no more secrets for a while", async () => {
    const scripts = await Promise.all(
      Array.from({ length: 30 }, async () => (await get(`/boot.ipxe?mac=${mac}`)).text()),
    );
    const secret = scripts.filter((script) => script.includes("password")).length;
    expect(secret).toBeGreaterThanOrEqual(1);
    expect(secret).toBeLessThanOrEqual(12);
    const other = await (await get("/boot.ipxe?mac=52:54:00:12:34:99")).text();
    expect(other).toContain("sanboot");
  });

  test("HEAD asks api nothing", async () => {
    const response = await get(`/boot.ipxe?mac=${mac}`, { method: "HEAD" });
    expect(response.status).toBe(200);
    expect(service.clients()).toEqual([]);
  });
});

describe("loaders and the rest", () => {
  test("a loader whole, its head, a range of it", async () => {
    expect(await (await get("/loader/ipxe.efi")).text()).toBe("0123456789");
    const head = await get("/loader/ipxe.efi", { method: "HEAD" });
    expect(head.headers.get("content-length")).toBe("10");
    const part = await get("/loader/ipxe.efi", { headers: { range: "bytes=2-4" } });
    expect([part.status, part.headers.get("content-range")]).toEqual([206, "bytes 2-4/10"]);
    expect(await part.text()).toBe("234");
    const past = await get("/loader/ipxe.efi", { headers: { range: "bytes=10-" } });
    expect([past.status, past.headers.get("content-range")]).toEqual([416, "bytes */10"]);
  });

  test.each([
    "/loader/secret.txt",
    "/loader/..%2fsecret.txt",
    "/loader/",
    "/etc/passwd",
    "/loader",
  ])("%s is not there", async (path) => {
    expect((await get(path)).status).toBe(404);
  });

  test("a browser is sent to the console; a hostile Host header can't choose where", async () => {
    const { port } = new URL(base());
    const location = (host: string) =>
      new Promise<string | undefined>((resolve, reject) => {
        httpRequest({ host: "127.0.0.1", port, path: "/", headers: { host } }, (response) => {
          response.resume();
          resolve(response.headers.location);
        })
          .on("error", reject)
          .end();
      });
    expect(await location("keelson.lab:80")).toBe("https://keelson.lab:8443/");
    expect(await location("evil.test/path")).toBe("https://127.0.0.1:8443/");
    expect(await location("a@evil.test")).toBe("https://127.0.0.1:8443/");
  });

  test("other methods are refused", async () => {
    expect((await get("/boot.ipxe", { method: "POST", body: "x" })).status).toBe(405);
  });

  test("status names the loaders it has; what isn't a loader isn't listed", async () => {
    const status = service.status();
    expect(status.loaders.map(({ name }) => name)).toEqual(["undionly.kpxe", "ipxe.efi"]);
    expect(status.missingLoaders).toEqual([]);
  });

  test.each([
    [undefined, undefined],
    ["bytes=0-0", { first: 0, last: 0 }],
    ["bytes=-3", { first: 7, last: 9 }],
    ["bytes=-99", { first: 0, last: 9 }],
    ["bytes=-0", "unsatisfiable"],
    ["bytes=8-99", { first: 8, last: 9 }],
    ["bytes=5-4", undefined],
    ["bytes=0-1,3-4", undefined],
    ["bytes=-", undefined],
    ["items=0-1", undefined],
  ])("range %s", (header, wanted) => {
    expect(rangeOf(header, 10)).toEqual(wanted);
  });
});

describe("control", () => {
  const policy = {
    generation: 5,
    interfaces: [
      {
        name: "eth7",
        mode: "server",
        subnet: "10.0.0.0/24",
        pool: { first: "10.0.0.10", last: "10.0.0.20" },
      },
    ],
  };

  test("policy is kept over a restart; an older one is refused, the same one is not", async () => {
    const put = (body: unknown) =>
      call("/v1/config", { method: "PUT", body: JSON.stringify(body) });
    expect((await put(policy)).status).toBe(200);
    await control.close();
    await service.stop();
    await startService();
    expect(service.config().generation).toBe(5);
    expect((await put({ ...policy, generation: 4 })).status).toBe(409);
    expect((await put(policy)).status).toBe(200);
    const [view] = service.status().interfaces;
    expect(view).toMatchObject({ name: "eth7", mode: "server", poolSize: 11, leased: 0 });
    expect(view.problem).toContain("--no-dhcp");
  });

  test.each([
    ["a pool outside the subnet", { pool: { first: "10.1.0.1", last: "10.1.0.2" } }, "pool"],
    ["a pool upside down", { pool: { first: "10.0.0.9", last: "10.0.0.2" } }, "pool"],
    ["a server without a subnet", { subnet: undefined }, "subnet"],
    ["a router elsewhere", { router: "10.1.0.1" }, "router"],
    ["a lease of a second", { leaseSeconds: 1 }, "leaseSeconds"],
    ["an interface name with a slash", { name: "../eth0" }, "name"],
  ])("%s is refused by its field's name", async (_, change, field) => {
    const body = { ...policy, interfaces: [{ ...policy.interfaces[0], ...change }] };
    const response = await call("/v1/config", { method: "PUT", body: JSON.stringify(body) });
    expect(response.status).toBe(400);
    expect(((await response.json()) as { title: string }).title).toContain(field);
    expect(service.config().generation).toBe(0);
  });

  test("what isn't JSON is refused as a person can read it", async () => {
    const response = await call("/v1/config", { method: "PUT", body: "{" });
    expect(response.status).toBe(400);
  });

  test("deleting a lease that isn't there", async () => {
    expect((await call("/v1/leases/10.0.0.9", { method: "DELETE" })).status).toBe(404);
  });
});
