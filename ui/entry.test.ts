import { describe, expect, test } from "vitest";
import { freeName, nameFromFile, readSize } from "./entry.ts";

describe("sizes as people type them", () => {
  test.each([
    ["20", 20 * 2 ** 30],
    ["20 GiB", 20 * 2 ** 30],
    [" 512M ", 512 * 2 ** 20],
    ["1.5t", 1.5 * 2 ** 40],
    ["5000 B", 8192],
  ])("%s is %d bytes", (text, bytes) => {
    expect(readSize(text)).toBe(bytes);
  });

  test.each(["", "0", "abc", "-1G", "1e3", "10 pounds"])("'%s' is refused", (text) => {
    expect(readSize(text)).toBeUndefined();
  });
});

describe("names of uploaded files", () => {
  const accepted = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
  test.each([
    ["debian 13.qcow2", "debian-13"],
    ["disk.raw.xz", "disk"],
    ["Ubuntu-24.04.IMG", "Ubuntu-24.04"],
    ["..hidden..", "hidden"],
    ["\u5927.qcow2", "image"],
    [`${"x".repeat(80)}.img`, "x".repeat(63)],
  ])("%s becomes %s", (file, name) => {
    expect(nameFromFile(file)).toBe(name);
    expect(name).toMatch(accepted);
  });

  test("a taken name gets the next free number, and stays within the length api takes", () => {
    expect(freeName("a", [])).toBe("a");
    expect(freeName("a", ["a", "a-2"])).toBe("a-3");
    expect(freeName("x".repeat(63), ["x".repeat(63)])).toMatch(accepted);
  });
});
