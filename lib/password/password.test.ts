import { describe, expect, test } from "vitest";
import {
  hashOfNothing,
  hashPassword,
  hashPasswordAsync,
  isOutdated,
  parsePasswordHash,
  sha512Crypt,
  verifyPassword,
} from "./password.ts";

describe("argon2id", () => {
  test("a hash says its parameters, differs each time, and verifies only its password", async () => {
    const one = hashPassword("correct horse");
    const two = await hashPasswordAsync("correct horse");
    expect(one).toMatch(/^\$argon2id\$v=19\$m=32768,t=3,p=1\$/);
    expect(one).not.toBe(two);
    expect(await verifyPassword("correct horse", one)).toBe(true);
    expect(await verifyPassword("correct horse", two)).toBe(true);
    expect(await verifyPassword("correct horsf", one)).toBe(false);
    expect(isOutdated(one)).toBe(false);
  });

  test("a hash of nothing costs as much to check as a real one, and no password has it", async () => {
    const [real, nothing] = [await hashPasswordAsync("secret"), hashOfNothing()];
    const cost = (hash: string) => hash.split("$").slice(0, 4);
    expect(cost(nothing)).toEqual(cost(real));
    expect(nothing.length).toBe(real.length);
    expect(hashOfNothing()).not.toBe(nothing);
    for (const password of ["", "secret"]) {
      expect(await verifyPassword(password, nothing)).toBe(false);
    }
  });

  test("composed and decomposed forms of a letter are the same password", async () => {
    expect(await verifyPassword("pa\u0308ss", hashPassword("p\u00e4ss"))).toBe(true);
  });
});

describe("SHA-512 crypt", () => {
  // Vectors of Drepper's specification, checked with OpenSSL's `passwd -6`.
  test.each([
    [
      "Hello world!",
      "saltstring",
      null,
      "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ],
    [
      "Hello world!",
      "saltstringsaltst",
      10000,
      "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ],
    [
      "we have a short salt string but not a short password",
      "short",
      77777,
      "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0",
    ],
  ])("%s", (password, salt, rounds, expected) => {
    expect(sha512Crypt(password, salt, rounds)).toBe(expected);
  });

  test("a hash from an answer file verifies, and is outdated", async () => {
    const hash = sha512Crypt("from the answer file", "abcdefgh", null);
    expect(await verifyPassword("from the answer file", hash)).toBe(true);
    expect(await verifyPassword("from the answer fil", hash)).toBe(false);
    expect(isOutdated(hash)).toBe(true);
  });
});

test.each([
  "",
  "plain",
  "$y$j9T$abc$def",
  "$1$abc$def",
  "$argon2i$v=19$m=1024,t=2,p=1$c29tZXNhbHRzYWx0$AAAA",
  "$argon2id$v=19$m=99999999,t=3,p=1$c29tZXNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
])("the hash %s is refused with what to give instead", (hash) => {
  expect(() => parsePasswordHash(hash)).toThrow(/can't be used/);
});
