/** Several emulators side by side, each on a copy of one node: an emulated machine takes one core. */
import { availableParallelism } from "node:os";
import type { UpgradeNode } from "./upgrade-node.ts";

/**
 * Gives each of `items` to the next free lane. `node` is the first lane and must be off; the others
 * start as copies of its disk with its saved states, and are off at the end. An item that fails
 * doesn't keep the others from being tried; then the first failure is thrown.
 */
export async function inLanes<Item>(
  node: UpgradeNode,
  items: readonly Item[],
  run: (lane: UpgradeNode, item: Item) => Promise<void>,
): Promise<void> {
  const waiting = [...items];
  const lanes = [node];
  while (lanes.length < Math.min(availableParallelism(), items.length)) {
    lanes.push(await node.copy(`lane-${lanes.length + 1}`));
  }
  const failures: unknown[] = [];
  await Promise.all(
    lanes.map(async (lane) => {
      for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
        try {
          await run(lane, item);
        } catch (error) {
          failures.push(error);
        } finally {
          await lane.kill();
        }
      }
    }),
  );
  await Promise.all(lanes.slice(1).map((lane) => lane.end()));
  if (failures.length > 0) throw failures[0];
}
