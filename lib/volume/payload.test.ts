import fc from "fast-check";
import { expect, test } from "vitest";
import { PayloadArea } from "./payload.ts";

test("runs never overlap, and everything comes back whole", () => {
  const step = fc.record({
    take: fc.boolean(),
    bytes: fc.integer({ min: 1, max: 1 << 20 }),
    pick: fc.nat(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const area = new PayloadArea(8 << 20);
      const taken: { offset: number; bytes: number }[] = [];
      for (const { take, bytes, pick } of steps) {
        if (take) {
          const offset = area.allocate(bytes);
          if (offset < 0) continue;
          expect(offset % 4096).toBe(0);
          expect(offset + bytes).toBeLessThanOrEqual(8 << 20);
          for (const run of taken) {
            expect(offset + bytes <= run.offset || run.offset + run.bytes <= offset).toBe(true);
          }
          taken.push({ offset, bytes });
        } else if (taken.length > 0) {
          const [run] = taken.splice(pick % taken.length, 1);
          area.release(run.offset, run.bytes);
        }
      }
      for (const run of taken) area.release(run.offset, run.bytes);
      expect(area.freeBytes).toBe(8 << 20);
      for (let index = 0; index < 8; index++)
        expect(area.allocate(1 << 20)).toBeGreaterThanOrEqual(0);
      expect(area.allocate(1)).toBe(-1);
    }),
  );
});

test("a run released twice, or with another length, is a fault", () => {
  const area = new PayloadArea(1 << 20);
  const offset = area.allocate(8192);
  expect(() => area.release(offset, 4096)).toThrow("not taken");
  area.release(offset, 8192);
  expect(() => area.release(offset, 8192)).toThrow("not taken");
  expect(area.allocate(0)).toBe(-1);
  expect(area.allocate((1 << 20) + 1)).toBe(-1);
});
