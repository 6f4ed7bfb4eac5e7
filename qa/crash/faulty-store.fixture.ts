/** A store in memory that loses, tears or misplaces one write in 64, to see the load find it. */
import { join } from "node:path";
import type { VolumeId } from "#lib/model/ids.ts";
import { BlockOp } from "#lib/volume/block.ts";
import type { BlockBatch } from "#lib/volume/executor.ts";
import { MemoryExecutor } from "#lib/volume/memory-executor.ts";
import { StoreRingServer } from "#lib/volume/store-ring-server.ts";
import { native } from "#native";

const [directory, volume, sizeText, fault] = process.argv.slice(2);

class FaultyExecutor extends MemoryExecutor {
  private writes = 0;

  override execute(batch: BlockBatch): void {
    for (let row = 0; row < batch.count; row++) {
      if (batch.op[row] !== BlockOp.write || ++this.writes % 64 !== 0) continue;
      if (fault === "lose") batch.op[row] = BlockOp.read;
      if (fault === "tear") batch.lengthBytes[row] = 2048;
      if (fault === "misplace") batch.sector[row] = batch.sector[row] === 0 ? 8 : 0;
    }
    super.execute(batch);
  }
}

const executor = new FaultyExecutor();
executor.volumes.set(volume as VolumeId, new Uint8Array(Number(sizeText)));
const server = new StoreRingServer(native!, executor, join(directory, "ring.sock"));
process.send?.("listening");
const serve = () => {
  for (const endMs = performance.now() + 100; performance.now() < endMs; ) server.turn(100);
  setImmediate(serve);
};
process.on("disconnect", () => process.exit());
serve();
