import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { EmbeddedStore } from "#lib/cluster-store/embedded.ts";
import { type BootRecord, Policy, type VolumeRecord } from "./policy.ts";

const volume = (id: string, name: string): VolumeRecord => ({
  id,
  name,
  kind: "plain",
  state: "creating",
  failure: null,
  sizeBytes: 1 << 20,
  parentVolumeId: null,
  sealed: false,
  createdAt: "2026-11-21T00:00:00.000Z",
});

const boot = (id: string, name: string, mac: string | null): BootRecord => ({
  id,
  name,
  mac,
  uuid: null,
  imageId: "image",
  cloneVolumeId: null,
  targetIqn: "iqn.2026-11.org.keelson:t",
  initiatorIqn: "iqn.2026-11.org.keelson:i",
  chapUser: "u",
  chapSecret: "s",
  createdAt: "2026-11-21T00:00:00.000Z",
});

describe("policy", () => {
  let store: EmbeddedStore;
  let policy: Policy;
  beforeEach(async () => {
    store = new EmbeddedStore(":memory:");
    policy = await Policy.open(store);
  });
  afterEach(async () => {
    policy.close();
    await store.close();
  });

  test("a record reads back, also by a new reader", async () => {
    await policy.change((draft) => draft.put("volume", volume("a", "one")));
    expect(policy.get("volume", "a").name).toBe("one");
    const other = await Policy.open(store);
    expect(other.list("volume")).toEqual(policy.list("volume"));
    expect(other.revision).toBe(policy.revision);
    other.close();
  });

  test("what another release left: kinds it knows alone stay, the first user's record gets its role", async () => {
    const odd = { key: "policy/record/persona/p", value: '{"id":"p","shape":"unknown"}' };
    const first = { key: "policy/record/user/admin", value: '{"id":"admin","passwordHash":"h"}' };
    const other = { key: "policy/record/user/anna", value: '{"id":"anna","passwordHash":"h"}' };
    const puts = [odd, first, other].map(({ key, value }) => ({ put: key, value }));
    expect((await store.transact([], puts)).done).toBe(true);
    const later = await Policy.open(store);
    expect(later.get("user", "admin")).toMatchObject({ roles: ["admin"], disabled: false });
    expect(later.get("user", "anna").roles).toEqual([]);
    await later.change((draft) => draft.put("volume", volume("a", "one")));
    expect((await store.get(odd.key))?.value).toBe(odd.value);
    later.close();
  });

  test("a name is taken once, whatever its case, and free again after a rename or a delete", async () => {
    const put = (id: string, name: string) =>
      policy.change((draft) => draft.put("volume", volume(id, name)));
    await put("a", "Disk");
    await expect(put("b", "disk")).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    await put("a", "other");
    await put("b", "disk");
    await expect(put("a", "disk")).rejects.toThrow(/A volume with the name disk exists already/);
    await policy.change((draft) => draft.delete("volume", "b"));
    await put("a", "disk");
    expect(policy.list("volume").map(({ id, name }) => [id, name])).toEqual([["a", "disk"]]);
  });

  test("a MAC leads to its boot entry, and to none after it is taken from it", async () => {
    const mac = "52:54:00:00:00:01";
    await policy.change((draft) => draft.put("boot", boot("x", "lab", mac)));
    expect(policy.claimant("boot", "boot-mac", mac)?.id).toBe("x");
    await policy.change((draft) => draft.put("boot", boot("x", "lab", null)));
    expect(policy.claimant("boot", "boot-mac", mac)).toBeUndefined();
  });

  test("an edit that throws writes nothing", async () => {
    const { revision } = policy;
    await expect(
      policy.change((draft) => {
        draft.put("volume", volume("a", "one"));
        throw new Error("second thoughts");
      }),
    ).rejects.toThrow("second thoughts");
    expect(policy.list("volume")).toEqual([]);
    expect(policy.revision).toBe(revision);
  });

  test("two writers at once: one of two claims of a name wins, neither is lost silently", async () => {
    const other = await Policy.open(store);
    const results = await Promise.allSettled([
      policy.change((draft) => draft.put("volume", volume("a", "same"))),
      other.change((draft) => draft.put("volume", volume("b", "same"))),
    ]);
    expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    other.close();
  });

  test("an edit based on what another writer changed meanwhile runs again on the newest", async () => {
    const other = await Policy.open(store);
    await policy.change((draft) => draft.put("volume", volume("a", "one")));
    // Both grow it by one MiB at the same time, a hundred times in all.
    const grow = (by: Policy) =>
      by.change((draft) => {
        const record = draft.get("volume", "a") ?? volume("a", "one");
        draft.put("volume", { ...record, sizeBytes: record.sizeBytes + 1 });
      });
    for (let i = 0; i < 50; i++) await Promise.all([grow(policy), grow(other)]);
    await expect.poll(() => policy.get("volume", "a").sizeBytes).toBe((1 << 20) + 100);
    other.close();
  });

  test("another writer's change is seen, and told to listeners", async () => {
    const other = await Policy.open(store);
    let told = 0;
    policy.onChange(() => told++);
    await other.change((draft) => draft.put("volume", volume("a", "one")));
    await expect.poll(() => policy.find("volume", "a")?.name).toBe("one");
    expect(told).toBeGreaterThan(0);
    await other.change((draft) => draft.delete("volume", "a"));
    await expect.poll(() => policy.find("volume", "a")).toBeUndefined();
    other.close();
  });

  test("a deleted record stays away while the watch still delivers its older puts", async () => {
    for (let i = 0; i < 20; i++) {
      await policy.change((draft) => draft.put("volume", volume("a", `name${i}`)));
      await policy.change((draft) => draft.delete("volume", "a"));
      expect(policy.find("volume", "a")).toBeUndefined();
      await new Promise((resolve) => setImmediate(resolve));
      expect(policy.find("volume", "a")).toBeUndefined();
    }
  });
});
