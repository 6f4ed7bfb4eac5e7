import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { LoginStatus } from "#lib/wire/iscsi/pdu.ts";
import { parseBinary } from "#lib/wire/iscsi/text.ts";
import { LoginLimiter } from "./login-limiter.ts";
import { Bench, initiatorName, type TestInitiator, targetName } from "./test-bench.ts";

const chap = { user: "client-1", secret: "correct horse battery" };
const mutual = { ...chap, mutualUser: "target-1", mutualSecret: "staple of another kind" };
const names: [string, string][] = [
  ["InitiatorName", initiatorName],
  ["TargetName", targetName],
];
const hashes: Record<string, string> = { "5": "md5", "7": "sha256", "8": "sha3-256" };

function respond(algorithm: string, identifier: string, secret: string, challenge: Uint8Array) {
  const digest = createHash(hashes[algorithm])
    .update(Uint8Array.of(Number(identifier)))
    .update(secret)
    .update(challenge)
    .digest("hex");
  return `0x${digest}`;
}

/** Up to the challenge. */
function begin(initiator: TestInitiator, algorithms = "5") {
  const first = initiator.login(0, 1, [...names, ["AuthMethod", "CHAP,None"]], { transit: false });
  expect(first.pairs.get("AuthMethod")).toBe("CHAP");
  const { pairs } = initiator.login(0, 1, [["CHAP_A", algorithms]], { transit: false });
  return {
    algorithm: pairs.get("CHAP_A")!,
    identifier: pairs.get("CHAP_I")!,
    challenge: parseBinary(pairs.get("CHAP_C")!)!,
    text: pairs.get("CHAP_C")!,
  };
}

function prove(initiator: TestInitiator, user: string, secret: string, algorithms = "5") {
  const { algorithm, identifier, challenge } = begin(initiator, algorithms);
  return initiator.login(0, 1, [
    ["CHAP_N", user],
    ["CHAP_R", respond(algorithm, identifier, secret, challenge)],
  ]);
}

describe("CHAP", () => {
  test.each([
    ["5", "5"],
    ["7,5", "7"],
    ["8,7,5", "8"],
    ["6,5", "5"],
  ])("algorithms %s: %s is chosen, the right secret logs in", (offer, chosen) => {
    const bench = new Bench({ entry: { chap } });
    const initiator = bench.connect();
    const { algorithm, identifier, challenge } = begin(initiator, offer);
    expect(algorithm).toBe(chosen);
    const proven = initiator.login(0, 1, [
      ["CHAP_N", chap.user],
      ["CHAP_R", respond(algorithm, identifier, chap.secret, challenge)],
    ]);
    expect([proven.status, proven.flags]).toEqual([0, 0x81]);
    expect(initiator.login(1, 3, []).status).toBe(0);
    expect(bench.core.sessionsView().sessions[0].authenticated).toBe("chap");
  });

  test.each([
    ["a wrong secret", chap.user, "wrong horse battery"],
    ["an unknown user", "client-2", chap.secret],
  ])("%s is refused, and counted", (_name, user, secret) => {
    const bench = new Bench({ entry: { chap } });
    const initiator = bench.connect();
    expect(prove(initiator, user, secret).status).toBe(LoginStatus.authenticationFailure);
    expect(initiator.open).toBe(false);
    expect(bench.core.loginFailures.authentication).toBe(1);
  });

  test.each<[string, [string, string][][]]>([
    ["skips security", [[...names]]],
    ["offers None only", [[...names, ["AuthMethod", "None"]]]],
    ["offers an algorithm nobody knows", [[...names, ["AuthMethod", "CHAP"]], [["CHAP_A", "6"]]]],
    [
      "answers before it is asked",
      [
        [...names, ["AuthMethod", "CHAP"]],
        [
          ["CHAP_N", "client-1"],
          ["CHAP_R", "0x00"],
        ],
      ],
    ],
  ])("an initiator that %s does not get in", (name, steps) => {
    const bench = new Bench({ entry: { chap } });
    const initiator = bench.connect();
    let status = 0;
    for (const pairs of steps) {
      const stage = name === "skips security" ? 1 : 0;
      ({ status } = initiator.login(stage, stage === 1 ? 3 : 1, pairs, {
        transit: name === "skips security",
      }));
    }
    expect(status).toBe(LoginStatus.authenticationFailure);
    expect(bench.core.sessionCount).toBe(0);
  });

  test("an initiator can't move on from security without a proof", () => {
    const bench = new Bench({ entry: { chap } });
    const initiator = bench.connect();
    const first = initiator.login(0, 3, [...names, ["AuthMethod", "CHAP"]]);
    expect(first.flags & 0x80).toBe(0);
    const next = initiator.login(1, 3, []);
    expect(next.status).toBe(LoginStatus.initiatorError);
    expect(bench.core.sessionCount).toBe(0);
  });

  test("mutual: the target proves itself", () => {
    const bench = new Bench({ entry: { chap: mutual } });
    const initiator = bench.connect();
    const { algorithm, identifier, challenge } = begin(initiator);
    const own = Buffer.from("0123456789abcdef");
    const { status, pairs } = initiator.login(0, 1, [
      ["CHAP_N", mutual.user],
      ["CHAP_R", respond(algorithm, identifier, mutual.secret, challenge)],
      ["CHAP_I", "77"],
      ["CHAP_C", `0x${own.toString("hex")}`],
    ]);
    expect(status).toBe(0);
    expect(pairs.get("CHAP_N")).toBe("target-1");
    expect(pairs.get("CHAP_R")).toBe(respond("5", "77", mutual.mutualSecret, own));
    initiator.login(1, 3, []);
    expect(bench.core.sessionsView().sessions[0].authenticated).toBe("mutualChap");
  });

  test("our challenge sent back is refused", () => {
    const bench = new Bench({ entry: { chap: mutual } });
    const initiator = bench.connect();
    const { algorithm, identifier, challenge, text } = begin(initiator);
    const { status } = initiator.login(0, 1, [
      ["CHAP_N", mutual.user],
      ["CHAP_R", respond(algorithm, identifier, mutual.secret, challenge)],
      ["CHAP_I", "1"],
      ["CHAP_C", text],
    ]);
    expect(status).toBe(LoginStatus.authenticationFailure);
  });

  test("a second challenge can't be had", () => {
    const bench = new Bench({ entry: { chap } });
    const initiator = bench.connect();
    begin(initiator);
    expect(initiator.login(0, 1, [["CHAP_A", "5"]], { transit: false }).status).toBe(
      LoginStatus.initiatorError,
    );
  });

  test("guessing is slowed, for that address only", () => {
    const bench = new Bench({ entry: { chap } });
    for (let count = 0; count < 10; count++) {
      prove(bench.connect("10.0.0.7:1"), chap.user, `guess number ${count}`);
    }
    const limited = bench.connect("10.0.0.7:2");
    const answer = limited.login(0, 1, [...names, ["AuthMethod", "CHAP"]], { transit: false });
    expect(answer.status).toBe(LoginStatus.authenticationFailure);
    expect(bench.core.loginFailures.rateLimited).toBe(1);
    expect(prove(bench.connect("10.0.0.8:1"), chap.user, chap.secret).status).toBe(0);
    bench.advance(6000);
    expect(prove(bench.connect("10.0.0.7:3"), chap.user, chap.secret).status).toBe(0);
  });

  test("the limiter forgets the oldest hosts, not the newest", () => {
    const limiter = new LoginLimiter(1, 1000, 2);
    for (const host of ["a", "b", "c"]) limiter.failed(host, 0);
    expect(["a", "b", "c"].map((host) => limiter.limited(host, 0))).toEqual([false, true, true]);
    expect(limiter.limited("c", 1001)).toBe(false);
  });
});
