import { describe, expect, test } from "vitest";
import { BlockOp, BlockStatus } from "#lib/volume/block.ts";
import { readU32 } from "#lib/wire/iscsi/layout.ts";
import {
  LoginStatus,
  logoutLayout,
  nopOutLayout,
  taskManagementLayout,
  textLayout,
} from "#lib/wire/iscsi/pdu.ts";
import { formatText, parseText } from "#lib/wire/iscsi/text.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";
import {
  Bench,
  entryOf,
  initiatorName,
  pattern,
  read10,
  reservedTag,
  type TestInitiator,
  targetName,
  volumeId,
  write10,
} from "./test-bench.ts";

const names: [string, string][] = [
  ["InitiatorName", initiatorName],
  ["TargetName", targetName],
];

function discover(bench: Bench, name: string, remote?: string) {
  const initiator = bench.connect(remote);
  const login = initiator.login(1, 3, [
    ["InitiatorName", name],
    ["SessionType", "Discovery"],
  ]);
  expect(login.status).toBe(0);
  initiator.send(
    textLayout.encode({
      opcode: 0x04,
      flags: 0x80,
      initiatorTaskTag: 9,
      targetTransferTag: reservedTag,
      cmdSN: initiator.cmdSN++,
    }),
    formatText([["SendTargets", "All"]]),
  );
  bench.settle();
  return Buffer.from(initiator.received.at(-1)!.data).toString("latin1");
}

describe("log-in", () => {
  test("security, then operational, then full feature, as iPXE does it", () => {
    const bench = new Bench();
    const initiator = bench.connect();
    const first = initiator.login(0, 1, [
      ...names,
      ["AuthMethod", "None"],
      ["SessionType", "Normal"],
    ]);
    expect(first.status).toBe(0);
    expect(first.flags).toBe(0x81);
    expect(first.pairs.get("AuthMethod")).toBe("None");
    expect(first.pairs.get("TargetPortalGroupTag")).toBe("1");
    const second = initiator.login(1, 3, [
      ["HeaderDigest", "None"],
      ["DataDigest", "None"],
      ["MaxConnections", "1"],
      ["InitialR2T", "Yes"],
      ["ImmediateData", "No"],
      ["MaxRecvDataSegmentLength", "8192"],
      ["MaxBurstLength", "262144"],
      ["DefaultTime2Wait", "0"],
      ["DefaultTime2Retain", "0"],
      ["MaxOutstandingR2T", "1"],
      ["DataPDUInOrder", "Yes"],
      ["DataSequenceInOrder", "Yes"],
      ["ErrorRecoveryLevel", "0"],
    ]);
    expect(second.status).toBe(0);
    expect(second.flags).toBe(0x87);
    expect(second.pairs.get("InitialR2T")).toBe("Yes");
    expect(second.pairs.get("ImmediateData")).toBe("No");
    expect(second.pairs.get("MaxRecvDataSegmentLength")).toBe("262144");
    expect([...second.pairs.values()]).not.toContain("Reject");
  });

  test.each<[string, [string, string][], number]>([
    ["no initiator name", [["TargetName", targetName]], LoginStatus.missingParameter],
    ["no target name", [["InitiatorName", initiatorName]], LoginStatus.missingParameter],
    [
      "a name that isn't one",
      [
        ["InitiatorName", "nobody"],
        ["TargetName", targetName],
      ],
      LoginStatus.initiatorError,
    ],
    [
      "an unknown target",
      [
        ["InitiatorName", initiatorName],
        ["TargetName", `${targetName}x`],
      ],
      LoginStatus.notFound,
    ],
    [
      "an initiator not on the list",
      [
        ["InitiatorName", "iqn.2026-11.org.example:other"],
        ["TargetName", targetName],
      ],
      LoginStatus.authorizationFailure,
    ],
    [
      "an unknown session type",
      [...names, ["SessionType", "Party"]],
      LoginStatus.sessionTypeNotSupported,
    ],
  ])("%s is refused", (_name, pairs, status) => {
    const bench = new Bench();
    const initiator = bench.connect();
    expect(initiator.login(1, 3, pairs).status).toBe(status);
    expect(initiator.open).toBe(false);
    expect(bench.core.sessionCount).toBe(0);
  });

  test("names are compared without regard to case", () => {
    const bench = new Bench();
    const pairs: [string, string][] = [
      ["InitiatorName", initiatorName.toUpperCase().replace("IQN", "iqn")],
      ["TargetName", targetName],
    ];
    expect(bench.connect().login(1, 3, pairs).status).toBe(0);
  });

  test("joining a session that isn't there is refused", () => {
    const bench = new Bench();
    const { status } = bench.connect().login(1, 3, names, { tsih: 7 });
    expect(status).toBe(LoginStatus.sessionDoesNotExist);
  });

  test("a volume that the store doesn't open makes the log-in wait, then fail", () => {
    const bench = new Bench();
    bench.put({
      generation: 2,
      exports: [entryOf({ volumeId: volumeId.replace("1", "9") as never })],
    });
    const initiator = bench.connect();
    expect(initiator.login(1, 3, names).status).toBe(-1);
    bench.advance(9000);
    const answer = initiator.received.shift()!;
    expect((answer.header[36] << 8) | answer.header[37]).toBe(LoginStatus.serviceUnavailable);
  });

  test("a volume that opens late lets the log-in through", () => {
    const bench = new Bench();
    const late = volumeId.replace("1", "9");
    bench.put({ generation: 2, exports: [entryOf({ volumeId: late as never })] });
    const initiator = bench.connect();
    expect(initiator.login(1, 3, names).status).toBe(-1);
    bench.port.volumes.set(late, new Uint8Array(1 << 20));
    bench.advance(2000);
    expect(initiator.received.shift()!.header[36]).toBe(0);
    expect(bench.core.sessionCount).toBe(1);
  });

  test("a log-in that takes too long is cut, as is anything before it", () => {
    const bench = new Bench();
    const slow = bench.connect();
    const wrong = bench.connect();
    wrong.command(read10(0, 1), 512, "read");
    bench.settle();
    expect(wrong.open).toBe(false);
    bench.advance(16_000);
    expect(slow.open).toBe(false);
  });

  test("the same initiator port again ends the former session; another port does not", () => {
    const bench = new Bench();
    const first = bench.connect().enter();
    const other = bench.connect();
    expect(other.login(1, 3, names, { isid: Uint8Array.of(0x80, 9, 9, 9, 9, 9) }).status).toBe(0);
    expect(first.open).toBe(true);
    bench.connect().enter();
    bench.settle();
    expect(first.open).toBe(false);
    expect(other.open).toBe(true);
    const earlier = bench.core.sessionsView().sessions.map((session) => session.earlierLogins);
    expect(earlier.sort()).toEqual([1, 2]);
  });

  test("a new session sees that what was volatile may be gone", () => {
    const bench = new Bench();
    const initiator = bench.connect();
    initiator.login(1, 3, names);
    expect(initiator.run([0, 0, 0, 0, 0, 0]).sense).toBe(Sense.powerOnOrReset);
    expect(initiator.run([0, 0, 0, 0, 0, 0]).status).toBe(0);
  });
});

describe("discovery", () => {
  test("lists only what the initiator may see", () => {
    const bench = new Bench();
    const open = entryOf({
      id: "open",
      iqn: "iqn.2026-11.org.example:open" as never,
      initiators: [],
      openToLoopback: true,
    });
    bench.put({ generation: 2, exports: [entryOf(), open] });
    expect(discover(bench, initiatorName)).toBe(
      `TargetName=${targetName}\0TargetAddress=10.0.0.1:3260,1\0`,
    );
    expect(discover(bench, "iqn.2026-11.org.example:other")).toBe("");
    expect(discover(bench, "iqn.2026-11.org.example:other", "127.0.0.1:5000")).toContain(":open");
  });

  test("a list longer than one PDU comes in parts", () => {
    const bench = new Bench();
    const exports = Array.from({ length: 300 }, (_, index) =>
      entryOf({ id: `d${index}`, iqn: `${targetName}${index}` as never }),
    );
    bench.put({ generation: 2, exports });
    const initiator = bench.connect();
    initiator.login(1, 3, [
      ["InitiatorName", initiatorName],
      ["SessionType", "Discovery"],
    ]);
    let text = "";
    let tag = reservedTag;
    for (let part = 0; part < 10; part++) {
      initiator.send(
        textLayout.encode({
          opcode: 0x04,
          flags: 0x80,
          initiatorTaskTag: 9,
          targetTransferTag: tag,
          cmdSN: initiator.cmdSN++,
        }),
        tag === reservedTag ? formatText([["SendTargets", "All"]]) : undefined,
      );
      bench.settle();
      const pdu = initiator.received.shift()!;
      text += Buffer.from(pdu.data).toString("latin1");
      tag = readU32(pdu.header, 20);
      if ((pdu.flags & 0x80) !== 0) break;
    }
    expect(text.match(/TargetName=/g)).toHaveLength(300);
  });

  test("a discovery session can't use SCSI", () => {
    const bench = new Bench();
    const initiator = bench.connect();
    initiator.login(1, 3, [
      ["InitiatorName", initiatorName],
      ["SessionType", "Discovery"],
    ]);
    initiator.command(read10(0, 1), 512, "read");
    bench.settle();
    expect(initiator.received.shift()!.opcode).toBe(0x3f);
  });
});

describe("session", () => {
  function manage(initiator: TestInitiator, what: number, referenced = 0) {
    initiator.send(
      taskManagementLayout.encode({
        opcode: 0x42,
        flags: 0x80 | what,
        initiatorTaskTag: 0x99,
        referencedTaskTag: referenced,
        cmdSN: initiator.cmdSN,
      }),
    );
  }

  function logOut(initiator: TestInitiator) {
    initiator.send(
      logoutLayout.encode({
        opcode: 0x46,
        flags: 0x80,
        initiatorTaskTag: 6,
        cmdSN: initiator.cmdSN,
      }),
    );
  }

  test("NOP-Out is echoed; log-out is answered, then the connection ends", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    initiator.send(
      nopOutLayout.encode({
        opcode: 0x40,
        flags: 0x80,
        initiatorTaskTag: 5,
        targetTransferTag: reservedTag,
        cmdSN: initiator.cmdSN,
      }),
      Buffer.from("ping"),
    );
    bench.settle();
    const echo = initiator.received.shift()!;
    expect(echo.opcode).toBe(0x20);
    expect(Buffer.from(echo.data).toString()).toBe("ping");
    logOut(initiator);
    bench.settle();
    expect(initiator.received.shift()!.opcode).toBe(0x26);
    expect(initiator.open).toBe(false);
  });

  test("is told of for a minute after its end, with what it was", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    expect(bench.core.sessionsView().ended).toEqual([]);
    const [{ id, since }] = bench.core.sessionsView().sessions;
    logOut(initiator);
    bench.settle();
    const { sessions, ended } = bench.core.sessionsView();
    expect(sessions).toEqual([]);
    expect(ended).toMatchObject([{ id, since, kind: "normal", phase: "fullFeature" }]);
    bench.advance(61_000);
    expect(bench.core.sessionsView().ended).toEqual([]);
  });

  test("a silent initiator is asked, and cut when it stays silent", () => {
    const bench = new Bench();
    const alive = bench.connect().enter();
    const dead = bench.connect();
    dead.login(1, 3, names, { isid: Uint8Array.of(0x80, 9, 9, 9, 9, 9) });
    bench.advance(21_000);
    const ping = alive.received.shift()!;
    expect(ping.opcode).toBe(0x20);
    const ttt = readU32(ping.header, 20);
    expect(ttt).not.toBe(reservedTag);
    alive.send(
      nopOutLayout.encode({
        opcode: 0x40,
        flags: 0x80,
        initiatorTaskTag: reservedTag,
        targetTransferTag: ttt,
        cmdSN: alive.cmdSN,
      }),
    );
    bench.advance(21_000);
    expect(dead.open).toBe(false);
    expect(alive.open).toBe(true);
  });

  test("commands outside of the window are ignored without an answer", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    initiator.command([0, 0, 0, 0, 0, 0], 0, "none", undefined, { cmdSN: initiator.cmdSN + 500 });
    initiator.command([0, 0, 0, 0, 0, 0], 0, "none", undefined, { cmdSN: initiator.cmdSN - 1 });
    bench.settle();
    expect(initiator.received).toEqual([]);
    expect(initiator.run([0, 0, 0, 0, 0, 0]).status).toBe(0);
  });

  test("the window never shrinks below what was promised, and closes at its depth", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    bench.port.held = true;
    let promised = 0;
    for (let count = 0; count < 128; count++) initiator.command(read10(count, 1), 512, "read");
    bench.settle();
    bench.port.held = false;
    bench.settle();
    expect(initiator.received).toHaveLength(128);
    for (const pdu of initiator.received) {
      const max = readU32(pdu.header, 32);
      expect(max).toBeGreaterThanOrEqual(promised);
      promised = max;
      expect(max).toBeGreaterThanOrEqual(readU32(pdu.header, 28) - 1);
    }
    expect(promised).toBe(initiator.cmdSN + 127);
  });

  test("ABORT TASK of a write in the store is answered once the store is done with it", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    bench.port.held = true;
    const tag = initiator.command(write10(0, 8), 4096, "write", pattern(4096));
    bench.settle();
    manage(initiator, 1, tag);
    bench.settle();
    expect(initiator.received).toEqual([]);
    bench.port.held = false;
    bench.settle();
    // No answer to the write, one to the abort.
    expect(initiator.received.map((pdu) => [pdu.opcode, pdu.header[2]])).toEqual([[0x22, 0]]);
    manage(initiator, 1, 0x4242);
    bench.settle();
    expect(initiator.received[1].header[2]).toBe(1);
    expect(bench.port.area.freeBytes).toBe(bench.port.payload.length);
  });

  test("LOGICAL UNIT RESET aborts everybody's tasks and tells everybody", () => {
    const bench = new Bench();
    const one = bench.connect().enter();
    const two = bench.connect();
    two.login(1, 3, names, { isid: Uint8Array.of(0x80, 9, 9, 9, 9, 9) });
    two.run([0, 0, 0, 0, 0, 0]);
    const asked = two.command(write10(0, 64), 32768, "write");
    bench.settle();
    expect(two.received.shift()!.opcode).toBe(0x31);
    manage(one, 5);
    bench.settle();
    expect(one.received.shift()!.header[2]).toBe(0);
    expect(one.run([0, 0, 0, 0, 0, 0]).sense).toBe(Sense.powerOnOrReset);
    expect(two.run([0, 0, 0, 0, 0, 0]).sense).toBe(Sense.powerOnOrReset);
    // Late data of the aborted write is discarded.
    two.dataOut(asked, 0, 0, 0, pattern(4096));
    expect(two.run([0, 0, 0, 0, 0, 0]).status).toBe(0);
    expect(bench.port.area.freeBytes).toBe(bench.port.payload.length);
  });

  const askText = (key: string, value: string) => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    initiator.send(
      textLayout.encode({
        opcode: 0x44,
        flags: 0x80,
        initiatorTaskTag: 9,
        targetTransferTag: reservedTag,
        cmdSN: initiator.cmdSN,
      }),
      formatText([[key, value]]),
    );
    bench.settle();
    return initiator.received.shift()!;
  };

  test("an extension's key that isn't known is answered so", () => {
    expect(parseText(askText("X-what", "1").data)).toEqual({
      ok: true,
      pairs: new Map([["X-what", "NotUnderstood"]]),
    });
  });

  test.each([
    ["SendTargetsPlease", "All"],
    ["SendTargets", "Alle"],
    ["SendTargets", "A"],
    ["sENDtARGETS", "aLL"],
    ["MaxConnections", "4"],
  ])("the text %s=%s is rejected", (key, value) => {
    expect(askText(key, value).opcode).toBe(0x3f);
  });

  test.each(["All", "", targetName])("the text SendTargets=%s is answered", (value) => {
    expect(askText("SendTargets", value).opcode).toBe(0x24);
  });
});

describe("exports", () => {
  test("an older generation is refused, the same one is applied again", () => {
    const bench = new Bench();
    bench.put({ generation: 5, exports: [entryOf()] });
    expect(() => bench.put({ generation: 4, exports: [] })).toThrow("older than 5");
    expect(bench.put({ generation: 5, exports: [entryOf()] })).toBe(0);
  });

  test("removing an export, or an initiator from its list, ends the sessions", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    expect(bench.put({ generation: 2, exports: [entryOf()] })).toBe(0);
    expect(initiator.open).toBe(true);
    expect(bench.put({ generation: 3, exports: [entryOf({ initiators: [] })] })).toBe(1);
    expect(initiator.open).toBe(false);
    bench.put({ generation: 4, exports: [entryOf()] });
    const again = bench.connect().enter();
    expect(bench.put({ generation: 5, exports: [] })).toBe(1);
    expect(again.open).toBe(false);
    expect(bench.connect().login(1, 3, names).status).toBe(LoginStatus.notFound);
  });

  test("a volume that grew: unit attention, then the new size", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    bench.port.volumes.set(volumeId, new Uint8Array(8 << 20));
    bench.put({ generation: 2, exports: [entryOf()] });
    expect(initiator.run([0, 0, 0, 0, 0, 0]).sense).toBe(Sense.capacityChanged);
    const { data } = initiator.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8, "read");
    expect(readU32(data, 0)).toBe((8 << 20) / 512 - 1);
    expect(initiator.run(read10((8 << 20) / 512 - 1, 1), 512, "read").status).toBe(0);
  });

  test("a read-only export refuses writes and says so", () => {
    const bench = new Bench({ entry: { readOnly: true } });
    const initiator = bench.connect().enter();
    const write = initiator.run(write10(0, 1), 512, "write", pattern(512), 512);
    expect(write.sense).toBe(Sense.writeProtected);
    expect(initiator.run([0x1a, 0, 0x3f, 0, 255, 0], 255, "read").data[2] & 0x80).toBe(0x80);
    expect(bench.port.done.some(({ op }) => op === BlockOp.write)).toBe(false);
  });

  test("GET never shows a secret", () => {
    const bench = new Bench({ entry: { chap: { user: "u", secret: "a-very-secret-1" } } });
    const text = JSON.stringify([bench.core.exportsView(), bench.core.sessionsView()]);
    expect(text).not.toContain("a-very-secret-1");
    expect(bench.core.exportsView().exports[0].chapUser).toBe("u");
  });
});

describe("the store", () => {
  test("goes away and comes back: commands only see a delay", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    bench.port.connected = false;
    bench.settle();
    initiator.command(write10(0, 1), 512, "write", pattern(512));
    bench.advance(5000);
    expect(initiator.received).toEqual([]);
    bench.port.connected = true;
    bench.settle();
    expect(initiator.received.shift()!.header[3]).toBe(0);
  });

  test("away for more than a minute: NOT READY", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    bench.port.connected = false;
    bench.settle();
    initiator.command(read10(0, 1), 512, "read");
    for (let second = 0; second < 62; second++) {
      bench.advance(1000);
      initiator.send(
        nopOutLayout.encode({
          opcode: 0x40,
          flags: 0x80,
          initiatorTaskTag: reservedTag,
          targetTransferTag: reservedTag,
          cmdSN: initiator.cmdSN,
        }),
      );
    }
    const answer = initiator.received.shift()!;
    expect([answer.header[3], answer.data[4], answer.data[14], answer.data[15]]).toEqual([
      2, 2, 4, 1,
    ]);
  });

  test.each([
    ["full", BlockOp.write, BlockStatus.noSpace, Sense.spaceAllocationFailed],
    ["read-only", BlockOp.write, BlockStatus.readOnly, Sense.writeProtected],
    ["failed", BlockOp.write, BlockStatus.storeFailed, Sense.internalTargetFailure],
  ])("%s: the write fails and says why", (_name, op, status, sense) => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    bench.port.faults.set(op, status);
    expect(initiator.run(write10(0, 8), 4096, "write", pattern(4096), 4096).sense).toBe(sense);
    bench.port.faults.clear();
    bench.advance(2000);
    expect(initiator.run(read10(0, 8), 4096, "read").status).toBe(0);
  });

  test("a block that doesn't match its checksum: MEDIUM ERROR, no data", () => {
    const bench = new Bench();
    const initiator = bench.connect().enter();
    bench.port.faults.set(BlockOp.read, BlockStatus.mediaError);
    const { sense, data, flags, residual } = initiator.run(read10(0, 8), 4096, "read");
    expect([sense, data.length, flags & 0x06, residual]).toEqual([
      Sense.unrecoveredReadError,
      0,
      0x02,
      4096,
    ]);
  });
});
