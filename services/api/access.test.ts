import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { EmbeddedStore } from "#lib/cluster-store/embedded.ts";
import { hashPassword, sha512Crypt } from "#lib/password/password.ts";
import { Sessions } from "./access.ts";
import { newUser } from "./account-records.ts";
import { isChallenge, LogIns } from "./log-in.ts";
import { LogInDevices } from "./log-in-device.ts";
import { LogInLimiter } from "./log-in-limiter.ts";
import { Policy } from "./policy.ts";
import { TotpFactors } from "./totp.ts";

let nowMs = 0;
const clock = {
  bootMs: () => nowMs,
  now: () => new Date(Date.UTC(2026, 10, 21) + nowMs).toISOString(),
};

describe("log-in limiter", () => {
  let limiter: LogInLimiter;
  beforeEach(() => {
    nowMs = 0;
    limiter = new LogInLimiter(clock);
  });
  const guess = (address: string, account = "admin") => ({ address, account });
  const wrong = (address: string) => limiter.attempt(guess(address), async () => false);
  const code = (attempt: Promise<void>) =>
    attempt.then(
      () => "ok",
      (error) => error.code,
    );

  test("five failures are free, then the wait doubles up to a minute", async () => {
    for (let i = 0; i < 5; i++) expect(await code(wrong("10.0.0.1"))).toBe("UNAUTHENTICATED");
    const waits: number[] = [];
    for (let i = 0; i < 8; i++) {
      expect(await code(wrong("10.0.0.1"))).toBe("RATE_LIMITED");
      const startMs = nowMs;
      while ((await code(wrong("10.0.0.1"))) === "RATE_LIMITED") nowMs += 500;
      waits.push((nowMs - startMs) / 1000);
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 60, 60]);
  });

  test("one address's guesses don't keep another one out, nor a good password from its own", async () => {
    for (let i = 0; i < 5; i++) await code(wrong("10.0.0.1"));
    expect(await code(limiter.attempt(guess("10.0.0.2"), async () => true))).toBe("ok");
    nowMs += 1000;
    expect(await code(limiter.attempt(guess("10.0.0.1"), async () => true))).toBe("ok");
    expect(await code(wrong("10.0.0.1"))).toBe("UNAUTHENTICATED");
  });

  test("an IPv6 guesser has a /64; a mapped IPv4 address is its IPv4 address", async () => {
    for (let i = 0; i < 5; i++) await code(wrong(`2001:db8::${i}`));
    expect(await code(wrong("2001:db8:0:0:ffff::9"))).toBe("RATE_LIMITED");
    expect(await code(wrong("2001:db8:0:1::9"))).toBe("UNAUTHENTICATED");
    for (let i = 0; i < 5; i++) await code(wrong("::ffff:10.0.0.9"));
    expect(await code(wrong("10.0.0.9"))).toBe("RATE_LIMITED");
  });

  test("a flood from many addresses is bounded, not queued without end", async () => {
    const gate = Promise.withResolvers<boolean>();
    const attempts = Array.from({ length: 30 }, (_, i) =>
      code(limiter.attempt(guess(`10.0.1.${i}`), () => gate.promise)),
    );
    gate.resolve(false);
    const results = await Promise.all(attempts);
    expect(results.filter((result) => result === "UNAUTHENTICATED")).toHaveLength(10);
    expect(results.filter((result) => result === "RATE_LIMITED")).toHaveLength(20);
  });

  test("strangers share one account's allowance, however many addresses they have", async () => {
    let refused = 0;
    for (let i = 0; i < 200; i++) {
      if ((await code(wrong(`10.${i}.0.1`))) === "RATE_LIMITED") refused++;
    }
    expect(refused).toBe(180);
    // Another account is none of it.
    const other = limiter.attempt(guess("10.250.0.1", "anna"), async () => false);
    expect(await code(other)).toBe("UNAUTHENTICATED");
    nowMs += 10_000;
    expect(await code(wrong("10.251.0.1"))).toBe("UNAUTHENTICATED");
    expect(await code(wrong("10.252.0.1"))).toBe("RATE_LIMITED");
  });

  test("meanwhile a known browser and a known address get in, and are counted apart", async () => {
    for (let i = 0; i < 30; i++) await code(wrong(`10.${i}.0.1`));
    const good = async () => true;
    const bad = async () => false;
    const stranger = guess("10.99.0.1");
    expect(await code(limiter.attempt(stranger, good))).toBe("RATE_LIMITED");
    const device = { ...guess("10.0.0.1"), device: "nonce" };
    expect(await code(limiter.attempt(device, good))).toBe("ok");
    const there = { ...guess("10.98.0.1"), knownAddress: () => true };
    expect(await code(limiter.attempt(there, good))).toBe("ok");
    for (const known of [device, there]) {
      for (let i = 0; i < 5; i++) await code(limiter.attempt(known, bad));
      expect(await code(limiter.attempt(known, good))).toBe("RATE_LIMITED");
    }
  });

  test("a success with an account of one's own doesn't buy more guesses at another's", async () => {
    let wrongs = 0;
    for (let i = 0; i < 100; i++) {
      if ((await code(wrong("10.0.0.1"))) === "UNAUTHENTICATED") wrongs++;
      await code(limiter.attempt(guess("10.0.0.1", "guesser"), async () => true));
    }
    expect(wrongs).toBe(20);
  });

  test("made-up names push nothing out: ten thousand of them leave admin's count as it was", async () => {
    for (let i = 0; i < 25; i++) await code(wrong(`10.${i}.0.1`));
    for (let i = 0; i < 10_500; i++) {
      const address = `10.${100 + (i % 100)}.${i % 256}.${(i >> 8) % 256}`;
      await code(limiter.attempt(guess(address, `made-up-${i}`), async () => false));
    }
    expect(await code(wrong("10.99.0.1"))).toBe("RATE_LIMITED");
  });

  test("known ones don't wait behind strangers for a hash", async () => {
    const gate = Promise.withResolvers<boolean>();
    const order: string[] = [];
    const attempt = (name: string, more: object) =>
      code(
        limiter.attempt({ ...guess(name, name), ...more }, async () => {
          order.push(name);
          return await gate.promise;
        }),
      );
    const all = Array.from({ length: 12 }, (_, i) => attempt(`10.0.2.${i}`, {}));
    const known = attempt("known", { device: "nonce" });
    gate.resolve(true);
    expect(await known).toBe("ok");
    await Promise.all(all);
    expect(order.indexOf("known")).toBe(2);
  });

  test("second-factor codes wait up to a quarter of an hour", async () => {
    const codes = () => limiter.attemptCode(guess("10.0.0.1"), async () => false);
    for (let i = 0; i < 10; i++) expect(await code(codes())).toBe("UNAUTHENTICATED");
    let tried = 0;
    for (let minute = 0; minute < 24 * 60; minute++) {
      nowMs += 60_000;
      if ((await code(codes())) === "UNAUTHENTICATED") tried++;
    }
    expect(tried).toBeLessThan(110);
  });
});

describe("sessions", () => {
  let store: EmbeddedStore;
  let policy: Policy;
  let sessions: Sessions;
  let logIns: LogIns;
  beforeEach(async () => {
    nowMs = 0;
    store = new EmbeddedStore(":memory:");
    policy = await Policy.open(store);
    await policy.change((draft) =>
      draft.put("user", newUser("admin", hashPassword("right password"), clock.now())),
    );
    sessions = new Sessions(policy, clock);
    const totp = new TotpFactors(policy, clock, "Keelson test");
    const devices = new LogInDevices(new Uint8Array(32));
    logIns = new LogIns({ policy, sessions, totp, devices, clock });
  });
  afterEach(async () => {
    policy.close();
    await store.close();
  });
  const origin = { address: "127.0.0.1" };
  const logIn = async (password: string, user = "admin") => {
    const answer = await logIns.logIn({ user, password }, origin);
    if (isChallenge(answer)) throw new Error("a code is asked for");
    return answer;
  };

  test("a token is good until its time is over, and the store never sees it", async () => {
    const { token, info } = await logIn("right password");
    expect(sessions.find(token)).toEqual(info);
    expect(JSON.stringify(await store.list("policy/"))).not.toContain(token);
    nowMs += 12 * 3600_000 - 1;
    expect(sessions.find(token)).toBeDefined();
    nowMs += 1;
    expect(sessions.find(token)).toBeUndefined();
  });

  test("a wrong password and an unknown user fail alike", async () => {
    await expect(logIn("wrong password")).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    await expect(logIn("right password", "root")).rejects.toMatchObject({
      code: "UNAUTHENTICATED",
      message: "Wrong user name or password.",
    });
  });

  test("log-out ends one session; a new password ends the others", async () => {
    const [a, b, c] = [
      await logIn("right password"),
      await logIn("right password"),
      await logIn("right password"),
    ];
    await sessions.logOut(a.token);
    expect(sessions.find(a.token)).toBeUndefined();
    await expect(
      logIns.changePassword(b.token, "admin", { current: "not it", next: "next password" }, origin),
    ).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    await logIns.changePassword(
      b.token,
      "admin",
      { current: "right password", next: "next password" },
      origin,
    );
    expect(sessions.find(b.token)).toBeDefined();
    expect(sessions.find(c.token)).toBeUndefined();
    await expect(logIn("right password")).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    await logIn("next password");
  });

  test("sessions outlast a restart", async () => {
    const { token } = await logIn("right password");
    const again = await Policy.open(store);
    expect(new Sessions(again, clock).find(token)).toBeDefined();
    again.close();
  });

  test("the answer file's crypt hash is replaced by argon2id at the first log-in", async () => {
    const passwordHash = sha512Crypt("from answer file", "saltsalt", null);
    await policy.change((draft) => draft.put("user", newUser("admin", passwordHash, clock.now())));
    await expect(logIn("other")).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    expect(policy.get("user", "admin").passwordHash).toBe(passwordHash);
    await logIn("from answer file");
    expect(policy.get("user", "admin").passwordHash).toMatch(/^\$argon2id\$/);
    await logIn("from answer file");
  });

  test("sessions don't pile up", async () => {
    for (let i = 0; i < 70; i++) {
      await policy.change((draft) =>
        draft.put("session", {
          id: `old${i}`,
          user: "admin",
          how: "password",
          address: "127.0.0.1",
          createdAt: clock.now(),
          expiresAt: new Date(Date.parse(clock.now()) + 60_000).toISOString(),
        }),
      );
      nowMs += 1;
    }
    const { token } = await logIn("right password");
    expect(policy.list("session")).toHaveLength(60);
    expect(sessions.find(token)).toBeDefined();
    nowMs += 61_000;
    await logIn("right password");
    await logIn("right password");
    expect(policy.list("session")).toHaveLength(3);
  });
});
