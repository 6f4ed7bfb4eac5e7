import { beforeEach, describe, expect, test } from "vitest";
import type { SessionView } from "#services/iscsi-target/schema.ts";
import type { StageReport } from "./boot-schema.ts";
import { ClientRegistry, nameArchitecture } from "./clients.ts";
import type { BootRecord } from "./policy.ts";

const mac = "52:54:00:00:00:01" as StageReport["mac"];
const initiator = "iqn.2026-11.org.keelson:host.a";
const ipxe = "400027230001";
const openIscsi = "00023d000000";

const boot = { mac, uuid: null, initiatorIqn: initiator } as unknown as BootRecord;

let clock = 0;
let registry: ClientRegistry;
beforeEach(() => {
  clock = 0;
  registry = new ClientRegistry({
    bootMs: () => clock,
    now: () => wallClock(),
  });
});

const wallClock = () => new Date(Date.UTC(2026, 10, 21) + clock).toISOString();
const report = (stage: StageReport["stage"], arch: number | undefined = 0, detail?: string) => {
  clock += 1000;
  registry.report({
    mac,
    stage,
    ...(arch === undefined ? {} : { arch }),
    ...(detail === undefined ? {} : { detail }),
  });
};
/** Told now, of something that was at `at`. */
const reportLate = (stage: StageReport["stage"], at: string, detail?: string) => {
  clock += 20_000;
  registry.report({ mac, stage, arch: 0, at, ...(detail === undefined ? {} : { detail }) });
};
const noArch = (stage: StageReport["stage"]) => {
  clock += 1000;
  registry.report({ mac, stage });
};

let nextId = 1;
const session = (isid: string, earlierLogins = 0, phase = "fullFeature"): SessionView =>
  ({
    id: nextId++,
    kind: "normal",
    phase,
    initiator,
    isid,
    earlierLogins,
    since: wallClock(),
    remoteAddress: "10.77.0.100:49152",
  }) as SessionView;
const sessions = (...open: SessionView[]) => sessionsAfter([], ...open);
const sessionsAfter = (ended: SessionView[], ...open: SessionView[]) => {
  clock += 1000;
  registry.applySessions({ sessions: open, ended }, [boot]);
};

const stages = () => registry.find(mac)?.stages.map(({ stage }) => stage);

describe("a client's boot", () => {
  test("goes from dhcp to os, each stage once", () => {
    report("dhcp");
    report("loader", 0, "undionly.kpxe");
    report("dhcp");
    report("script");
    const loader = session(ipxe);
    sessions(loader);
    sessions(loader);
    sessions(loader, session(openIscsi, 1));
    expect(stages()).toEqual(["dhcp", "loader", "script", "san", "os"]);
    expect(registry.find(mac)).toMatchObject({
      arch: "bios",
      sessionCount: 2,
      failure: null,
      lastSeenMs: clock,
    });
    expect(registry.find(mac)?.stages[1].detail).toBe("undionly.kpxe");
  });

  test("a session that was over before it was told of is a stage all the same, once", () => {
    const before = session(openIscsi, 4);
    sessionsAfter([before]);
    expect(stages(), "before this process began").toBeUndefined();
    report("script");
    const short = session(ipxe);
    sessionsAfter([before, short]);
    expect(stages()).toEqual(["script", "san"]);
    expect(registry.find(mac)).toMatchObject({ sessionCount: 0 });
    const system = session(openIscsi, 1);
    sessionsAfter([short], system);
    sessionsAfter([short, system]);
    expect(stages()).toEqual(["script", "san", "os"]);
    expect(registry.find(mac)).toMatchObject({ sessionCount: 0 });
  });

  test("the loader logging in again after a lost connection is not the system", () => {
    report("script");
    sessions(session(ipxe));
    sessions();
    sessions(session(ipxe, 1));
    expect(stages()).toEqual(["script", "san"]);
    sessions(session(openIscsi, 2));
    expect(stages()).toEqual(["script", "san", "os"]);
  });

  test("a log-in that isn't through yet is no stage", () => {
    report("script");
    sessions(session(ipxe, 0, "login"));
    expect(stages()).toEqual(["script"]);
  });

  test.each([
    ["dhcp of its ROM", () => report("dhcp"), ["dhcp"]],
    ["loader", () => report("loader"), ["loader"]],
    ["script", () => report("script"), ["script"]],
  ])("begins anew with the %s after the system ran", (_name, again, expected) => {
    report("dhcp");
    report("script");
    sessions(session(ipxe));
    sessions(session(openIscsi, 1));
    clock += 30_000;
    again();
    expect(stages()).toEqual(expected);
  });

  test("a script's second report is not a new boot, however late it comes", () => {
    report("dhcp");
    report("script");
    const served = wallClock();
    sessions(session(ipxe));
    sessions(session(openIscsi, 1));
    reportLate("script", served, "iqn.2026-11.org.example:disk");
    expect(stages()).toEqual(["dhcp", "script", "san", "os"]);
    expect(registry.find(mac)?.stages[1].detail).toBe("iqn.2026-11.org.example:disk");
  });

  test("reports that the script overtook are stages of that boot", () => {
    const asked = wallClock();
    report("script");
    sessions(session(ipxe));
    reportLate("dhcp", asked);
    reportLate("loader", asked, "undionly.kpxe");
    expect(stages()).toEqual(["dhcp", "loader", "script", "san"]);
  });

  test("a clock that was set back doesn't hide a new boot for longer than reports take", () => {
    report("script");
    sessions(session(ipxe));
    clock += 120_000;
    registry.report({ mac, stage: "dhcp", arch: 0, at: "1970-01-01T00:00:00Z" });
    expect(stages()).toEqual(["dhcp"]);
  });

  test("the booted system's own request for an address changes nothing", () => {
    report("dhcp");
    report("script");
    sessions(session(ipxe));
    noArch("dhcp");
    expect(stages()).toEqual(["dhcp", "script", "san"]);
  });

  test("the second boot's sessions count, not the first's that are still open", () => {
    const [old, oldSystem] = [session(ipxe), session(openIscsi, 1)];
    report("script");
    sessions(old, oldSystem);
    report("dhcp");
    report("script");
    sessions(old, oldSystem);
    expect(stages()).toEqual(["dhcp", "script"]);
    sessions(oldSystem, session(ipxe, 2));
    expect(stages()).toEqual(["dhcp", "script", "san"]);
  });

  test("after api was restarted the target's count tells loader from system", () => {
    sessions(session(openIscsi, 1));
    expect(stages()).toEqual(["san", "os"]);
  });

  test("a failure is shown until the boot goes on or begins anew", () => {
    report("script");
    registry.setFailure(mac, "The image is missing.");
    expect(registry.find(mac)?.failure).toBe("The image is missing.");
    sessions(session(ipxe));
    expect(registry.find(mac)?.failure).toBeNull();
  });
});

test("a client without MAC in its entry is found by its UUID", () => {
  const uuid = "4c4c4544-0042-4810-8054-b7c04f463132" as NonNullable<StageReport["uuid"]>;
  registry.report({ mac, uuid, stage: "script", arch: 7 });
  registry.applySessions({ sessions: [session(ipxe)], ended: [] }, [{ ...boot, mac: null, uuid }]);
  expect(stages()).toEqual(["script", "san"]);
});

test("a flood of forged addresses forgets the longest unseen, not the one that is booting", () => {
  report("dhcp");
  for (let i = 0; i < 5000; i++) {
    const forged = `02:00:00:00:${(i >> 8).toString(16).padStart(2, "0")}:${(i & 255).toString(16).padStart(2, "0")}`;
    registry.report({ mac: forged as typeof mac, stage: "dhcp", arch: 0 });
    if (i % 1000 === 0) report("loader");
  }
  expect(registry.list().length).toBe(4096);
  expect(stages()).toEqual(["dhcp", "loader"]);
});

test("architectures have names, also those nobody named", () => {
  expect([0, 7, 9, 16, 4711].map(nameArchitecture)).toEqual([
    "bios",
    "uefi-x64",
    "uefi-x64",
    "uefi-x64-http",
    "arch-4711",
  ]);
});
