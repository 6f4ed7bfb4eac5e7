import { describe, expect, test } from "vitest";
import type { MacAddress } from "#lib/model/ids.ts";
import { ClientTable, maxClients } from "./client-table.ts";

const mac = "52:54:00:00:00:01" as MacAddress;

function table() {
  let nowMs = 1_000_000;
  const clients = new ClientTable(() => nowMs);
  return { clients, wait: (ms: number) => (nowMs += ms) };
}

describe("stages of a boot", () => {
  test("each stage is news once; firmware's repetitions are not", () => {
    const { clients, wait } = table();
    expect(clients.observe({ mac, stage: "dhcp", ip: "10.0.0.9" })).toBe(true);
    wait(1000);
    expect(clients.observe({ mac, stage: "dhcp", ip: "10.0.0.9" })).toBe(false);
    expect(clients.observe({ mac, stage: "loader", detail: "snponly.efi" })).toBe(true);
    expect(clients.observe({ mac, stage: "loader", detail: "snponly.efi" })).toBe(false);
    wait(20_000);
    expect(clients.observe({ mac, stage: "loader", detail: "snponly.efi" })).toBe(false);
    expect(clients.observe({ mac, stage: "loader", detail: "ipxe.efi" })).toBe(true);
    wait(6000);
    expect(clients.observe({ mac, stage: "dhcp", ip: "10.0.0.9" })).toBe(true);
  });

  test("iPXE's DHCP after the loader is the same boot, not a new one", () => {
    const { clients, wait } = table();
    clients.observe({ mac, stage: "dhcp" });
    clients.observe({ mac, stage: "loader" });
    wait(8000);
    expect(clients.observe({ mac, stage: "dhcp", ip: "10.0.0.10" }, { chained: true })).toBe(false);
    clients.observe({ mac, stage: "script", action: "san" });
    const [view] = clients.views();
    expect(Object.keys(view.stages)).toEqual(["dhcp", "loader", "script"]);
    expect(view.ip).toBe("10.0.0.10");
  });

  test("the next boot starts anew: a failure of the last one is not carried over", () => {
    const { clients, wait } = table();
    clients.observe({ mac, stage: "dhcp", uuid: "u" });
    clients.observe({ mac, stage: "script", action: "error", failure: "store full" });
    wait(60_000);
    clients.observe({ mac, stage: "dhcp" });
    const [view] = clients.views();
    expect(view.stages).toEqual({ dhcp: view.at });
    expect(view).toMatchObject({ uuid: "u", stage: "dhcp" });
    expect(view.failure).toBeUndefined();
    expect(view.action).toBeUndefined();
  });

  test("an address is its latest owner's", () => {
    const { clients } = table();
    const other = "52:54:00:00:00:02" as MacAddress;
    clients.observe({ mac, stage: "dhcp", ip: "10.0.0.9" });
    clients.observe({ mac: other, stage: "dhcp", ip: "10.0.0.9" });
    clients.observe({ mac, stage: "dhcp", ip: "10.0.0.10" });
    expect(clients.macAt("10.0.0.9")).toBe(other);
    expect(clients.macAt("10.0.0.10")).toBe(mac);
  });

  test("a flood of invented MACs forgets the oldest, and memory stays bounded", () => {
    const { clients } = table();
    for (let index = 0; index < maxClients + 10; index++) {
      const hex = index.toString(16).padStart(12, "0").match(/../g)!.join(":");
      clients.observe({ mac: hex as MacAddress, stage: "dhcp" });
    }
    expect(clients.views().length).toBe(maxClients);
  });
});
