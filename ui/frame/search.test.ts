import { describe, expect, test } from "vitest";
import { rank, searchEntries } from "./search.ts";

const entry = (title: string, kind = "page", detail = "") => ({ title, kind, detail });

describe("how well a title answers what was typed", () => {
  test.each([
    ["vol", "Volumes", "Create volume"],
    ["create", "Create volume", "Recreated"],
    ["volumes", "Volumes", "volumes-backup"],
  ])("%s: %s comes before %s", (query, better, worse) => {
    expect(rank(query, better)!).toBeLessThan(rank(query, worse)!);
  });

  test("all words must be found, in any order", () => {
    expect(rank("boot net", "Network boot")).toBeDefined();
    expect(rank("boot disk", "Network boot")).toBeUndefined();
  });

  test("letters that are only scattered in a title don't count", () => {
    expect(rank("vs", "Volumes")).toBeUndefined();
  });

  test("accents and case don't matter", () => {
    expect(rank("cafe", "Café-3")).toBeDefined();
  });
});

describe("a search", () => {
  test("nothing typed: pages and actions, in their order", () => {
    const entries = [entry("Overview"), entry("Log out", "action"), entry("disk-1", "volume")];
    expect(searchEntries("  ", entries, 10).map(({ title }) => title)).toEqual([
      "Overview",
      "Log out",
    ]);
  });

  test("a name that is equal comes first, however many others contain it", () => {
    const entries = Array.from({ length: 5000 }, (_, at) => entry(`disk-${at}`, "volume"));
    const found = searchEntries("disk-77", entries, 8);
    expect(found[0].title).toBe("disk-77");
    expect(found).toHaveLength(8);
  });

  test("what stands beside a name is looked through too, after the names", () => {
    const entries = [entry("lab-1", "client", "52:54:00:00:00:07"), entry("52-disk", "volume")];
    expect(searchEntries("52", entries, 9).map(({ title }) => title)).toEqual(["52-disk", "lab-1"]);
  });
});
