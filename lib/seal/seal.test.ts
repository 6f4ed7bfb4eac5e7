import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { isKeelsonError } from "#lib/model/errors.ts";
import { isSealed, SecretBox } from "./secret-box.ts";
import { loadSecretKey } from "./secret-key.ts";

const folder = mkdtempSync(join(tmpdir(), "keelson-seal-"));
afterAll(() => rmSync(folder, { recursive: true }));

const codeOf = (open: () => unknown): string => {
  try {
    open();
    return "opened";
  } catch (error) {
    return isKeelsonError(error) ? error.code : String(error);
  }
};

describe("a sealed secret", () => {
  const key = randomBytes(32);
  const box = new SecretBox(key);
  const place = "policy/record/export/1#chapSecret";

  test.each(["", "a", "geheim ünïcode \u0000", "x".repeat(100_000)])("opens again: %#", (plain) => {
    const sealed = box.seal(plain, place);
    expect(isSealed(sealed)).toBe(true);
    expect(new SecretBox(key).open(sealed, place)).toBe(plain);
  });

  test("the form that stands on disks opens for ever", () => {
    const old = new SecretBox(Buffer.alloc(32, 7));
    const golden = "sealed:1:52d7d40dca1a13ad:qAXySCO6y-10arZgtnVhMDL-IZ4kxBTNvrfPkbEHiaLkL8Ih";
    expect(old.open(golden, "a place")).toBe("a secret");
  });

  test("twice the same is not the same text", () => {
    expect(box.seal("a", place)).not.toBe(box.seal("a", place));
  });

  test("every changed character, and every cut, is refused", () => {
    const sealed = box.seal("a secret", place);
    for (let at = 0; at < sealed.length; at++) {
      const flipped = `${sealed.slice(0, at)}${sealed[at] === "A" ? "B" : "A"}${sealed.slice(at + 1)}`;
      expect(
        codeOf(() => box.open(flipped, place)),
        `at ${at}`,
      ).not.toBe("opened");
      expect(
        codeOf(() => box.open(sealed.slice(0, at), place)),
        `cut ${at}`,
      ).not.toBe("opened");
    }
    expect(codeOf(() => box.open(`${sealed}A`, place))).toBe("FORMAT_CORRUPT");
  });

  test("elsewhere it doesn't open: a record can't take another's secret", () => {
    const sealed = box.seal("a secret", place);
    expect(codeOf(() => box.open(sealed, "policy/record/export/2#chapSecret"))).toBe(
      "FORMAT_CORRUPT",
    );
  });

  test("another key is told from damage, a newer form from both", () => {
    const sealed = new SecretBox(randomBytes(32)).seal("a secret", place);
    expect(codeOf(() => box.open(sealed, place))).toBe("PERMISSION_DENIED");
    expect(codeOf(() => box.open(sealed.replace(":1:", ":2:"), place))).toBe("UNSUPPORTED");
    expect(codeOf(() => box.open("plain", place))).toBe("FORMAT_CORRUPT");
  });

  test("the key's id tells nothing of it and is of it alone", () => {
    expect(box.keyId).toMatch(/^[0-9a-f]{16}$/);
    expect(key.toString("hex")).not.toContain(box.keyId);
    expect(new SecretBox(randomBytes(32)).keyId).not.toBe(box.keyId);
  });
});

test("a fingerprint is of the key, of each part, and of where parts begin", () => {
  const [key, other] = [randomBytes(32), randomBytes(32)];
  const of = (...parts: string[]) => new SecretBox(key).fingerprint(...parts);
  expect(of("a", "b")).toMatch(/^[0-9a-f]{64}$/);
  expect(of("a", "b")).toBe(of("a", "b"));
  expect(new Set([of("a", "b"), of("ab"), of("ab", ""), of("", "ab"), of("b", "a")]).size).toBe(5);
  expect(new SecretBox(other).fingerprint("a", "b")).not.toBe(of("a", "b"));
});

describe("a service's key", () => {
  test("without a file it is made once, private, and the same at the next start", () => {
    const state = join(folder, "state");
    const first = loadSecretKey(undefined, state);
    expect(first.sealedBy).toBe("file");
    expect(statSync(join(state, "secret.key")).mode & 0o777).toBe(0o600);
    expect(loadSecretKey(undefined, state).box.keyId).toBe(first.box.keyId);
  });

  test("a file says what sealed it; unsaid is the weaker", () => {
    const path = join(folder, "api.key");
    writeFileSync(path, randomBytes(32));
    expect(loadSecretKey(path, folder).sealedBy).toBe("host");
    writeFileSync(`${path}.seal`, "tpm2\n");
    expect(loadSecretKey(path, folder).sealedBy).toBe("tpm2");
  });

  test("a missing key is named and not made up; a short one is refused", () => {
    const path = join(folder, "none.key");
    expect(codeOf(() => loadSecretKey(path, folder))).toBe("UNAVAILABLE");
    writeFileSync(path, "short");
    expect(codeOf(() => loadSecretKey(path, folder))).toBe("FORMAT_CORRUPT");
    expect(readFileSync(path, "utf8")).toBe("short");
  });
});
