import { appendFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import type { MacAddress } from "#lib/model/ids.ts";
import { type Ipv4, parseIpv4 } from "#lib/wire/dhcp/address.ts";
import { type Claimant, type Lease, LeaseTable } from "./lease.ts";
import { LeaseJournal, loadLeases } from "./lease-journal.ts";
import { netbootConfig } from "./schema.ts";
import { interfaceScope } from "./scope.ts";

const ip = (text: string) => parseIpv4(text)!;
const policy = netbootConfig.parse({
  generation: 1,
  interfaces: [
    {
      name: "eth0",
      mode: "server",
      subnet: "10.0.0.0/24",
      pool: { first: "10.0.0.10", last: "10.0.0.13" },
    },
  ],
}).interfaces[0];
const scope = interfaceScope(policy)!;
const none: ReadonlySet<Ipv4> = new Set();

function claimant(index: number, more: Partial<Claimant> = {}): Claimant {
  const mac = `02:00:00:00:00:${index.toString(16).padStart(2, "0")}` as MacAddress;
  return { mac, clientId: `mac:${mac}`, firmware: false, ...more };
}

function lease(who: Claimant, address: Ipv4, more: Partial<Lease> = {}): Lease {
  return { ip: address, ...who, scope: "eth0", state: "bound", expiresAtMs: 1000, ...more };
}

describe("choosing an address", () => {
  test("the same client gets the same address, also from an empty table", () => {
    const first = new LeaseTable(() => 0).choose(scope, claimant(1), undefined, none);
    expect(new LeaseTable(() => 0).choose(scope, claimant(1), undefined, none)).toBe(first);
  });

  test("the one asked for is given when it is free", () => {
    const table = new LeaseTable(() => 0);
    expect(table.choose(scope, claimant(1), ip("10.0.0.12"), none)).toBe(ip("10.0.0.12"));
    table.put(lease(claimant(2), ip("10.0.0.12")));
    expect(table.choose(scope, claimant(1), ip("10.0.0.12"), none)).not.toBe(ip("10.0.0.12"));
    expect(table.choose(scope, claimant(1), ip("10.0.9.9"), none)).toBeDefined();
  });

  test("a full pool gives nothing; the lease that expired first is reused", () => {
    let now = 0;
    const table = new LeaseTable(() => now);
    for (let index = 0; index < 4; index++) {
      const address = (scope.pool!.first + index) as Ipv4;
      table.put(lease(claimant(index), address, { expiresAtMs: 1000 + index }));
    }
    expect(table.choose(scope, claimant(9), undefined, none)).toBeUndefined();
    now = 1002.5;
    expect(table.choose(scope, claimant(9), undefined, none)).toBe(scope.pool!.first);
  });

  test("addresses of this node and of reservations are not given away", () => {
    const table = new LeaseTable(() => 0);
    table.setReservations([[claimant(7).mac, ip("10.0.0.11")]]);
    const taken = new Set([ip("10.0.0.10")]);
    const given = new Set<Ipv4>();
    for (let index = 20; index < 24; index++) {
      const address = table.choose(scope, claimant(index), undefined, taken);
      if (address === undefined) continue;
      given.add(address);
      table.put(lease(claimant(index), address));
    }
    expect([...given].sort()).toEqual([ip("10.0.0.12"), ip("10.0.0.13")]);
    expect(table.choose(scope, claimant(7), undefined, taken)).toBe(ip("10.0.0.11"));
  });

  test("firmware, iPXE and the system of one machine keep one address", () => {
    const table = new LeaseTable(() => 0);
    const firmware = claimant(1, { firmware: true });
    table.put(lease(firmware, ip("10.0.0.12"), { firmware: true }));
    const system = claimant(1, { clientId: "ff00aabb" });
    expect(table.choose(scope, system, undefined, none)).toBe(ip("10.0.0.12"));
    table.put(lease(system, ip("10.0.0.12")));
    expect(table.choose(scope, firmware, undefined, none)).toBe(ip("10.0.0.12"));
  });

  test("two systems behind one MAC get two addresses", () => {
    const table = new LeaseTable(() => 0);
    table.put(lease(claimant(1, { clientId: "aa01" }), ip("10.0.0.12")));
    const other = claimant(1, { clientId: "aa02" });
    expect(table.choose(scope, other, undefined, none)).not.toBe(ip("10.0.0.12"));
  });

  test("no two clients ever hold one address at once", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            who: fc.integer({ min: 1, max: 8 }),
            act: fc.constantFrom("bind", "release", "decline", "wait"),
            wanted: fc.option(fc.integer({ min: 8, max: 15 }), { nil: undefined }),
          }),
          { maxLength: 60 },
        ),
        (steps) => {
          let now = 0;
          const table = new LeaseTable(() => now);
          const holders = new Map<Ipv4, { who: number; until: number }>();
          for (const { who, act, wanted } of steps) {
            if (act === "wait") {
              now += 400;
              continue;
            }
            const me = claimant(who);
            const asked = wanted === undefined ? undefined : ip(`10.0.0.${wanted}`);
            const address = table.choose(scope, me, asked, none);
            if (address === undefined) continue;
            const holder = holders.get(address);
            if (holder !== undefined && holder.until > now) expect(holder.who).toBe(who);
            if (act === "release") {
              table.remove(address);
              holders.delete(address);
            } else {
              const state = act === "bind" ? ("bound" as const) : ("declined" as const);
              table.put(lease(me, address, { state, expiresAtMs: now + 1000 }));
              // Nobody may hold a declined address; a client that moved holds its new one alone.
              for (const [key, value] of holders) if (value.who === who) holders.delete(key);
              holders.set(address, { who: act === "bind" ? who : -1, until: now + 1000 });
            }
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("journal", () => {
  const folders: string[] = [];
  afterEach(() => {
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
  });
  const place = () => {
    const folder = mkdtempSync(join(tmpdir(), "netboot-journal-"));
    folders.push(folder);
    return join(folder, "leases.jsonl");
  };

  test("what was put is loaded, what was freed is not", async () => {
    const path = place();
    const journal = await LeaseJournal.open(path, () => []);
    const kept = lease(claimant(1), ip("10.0.0.10"), { hostname: "one" });
    await Promise.all([
      journal.put(kept),
      journal.put(lease(claimant(2), ip("10.0.0.11"))),
      journal.free(ip("10.0.0.11")),
    ]);
    await journal.close();
    expect(loadLeases(path)).toEqual({ leases: [kept], skipped: 0 });
  });

  test("a torn last line and lines of garbage are dropped, the rest stays", async () => {
    const path = place();
    const journal = await LeaseJournal.open(path, () => []);
    const kept = lease(claimant(1), ip("10.0.0.10"));
    await journal.put(kept);
    await journal.close();
    appendFileSync(path, '\u0000\u0001\n{"ip":"x"}\n{"ip":"10.0.0.12","mac":"02:00');
    expect(loadLeases(path)).toEqual({ leases: [kept], skipped: 3 });
  });

  test("opening writes it anew with the live leases only", async () => {
    const path = place();
    const live = [lease(claimant(1), ip("10.0.0.10"))];
    const first = await LeaseJournal.open(path, () => live);
    for (let index = 0; index < 50; index++) await first.put(live[0]);
    await first.close();
    await (await LeaseJournal.open(path, () => live)).close();
    expect(readFileSync(path, "utf8").trim().split("\n").length).toBe(1);
    expect(loadLeases(path).leases).toEqual(live);
  });

  test("a client that moved has only its last address after a restart", async () => {
    const path = place();
    const journal = await LeaseJournal.open(path, () => []);
    await journal.put(lease(claimant(1), ip("10.0.0.12")));
    await journal.put(lease(claimant(1), ip("10.0.0.10")));
    await journal.close();
    const table = new LeaseTable(() => 0, loadLeases(path).leases);
    expect(table.all().map((one) => one.ip)).toEqual([ip("10.0.0.10")]);
  });
});
