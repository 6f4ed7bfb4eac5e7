/**
 * An access port of a VLAN, as on a switch: a segment whose untagged frames travel on another one
 * with an IEEE 802.1Q tag. The kernel that runs the tests may have no VLAN devices of its own.
 */
import { connect } from "node:net";
import { createSegment, frameSplitter, type Segment } from "./segment.ts";

const lengthBytes = 4;
/** Both MAC addresses; the tag comes after them. */
const addressBytes = 12;
const tagProtocol = 0x8100;

/** Its hub listens on `path`. Frames of other VLANs, and untagged ones, don't come through. */
export async function openAccessPort(trunk: Segment, vlan: number, path: string): Promise<Segment> {
  const access = await createSegment(path);
  const [outside, inside] = [connect(trunk.path), connect(access.path)];
  const join = (from: typeof outside, to: typeof outside, change: typeof tagged) => {
    const split = frameSplitter((frame) => {
      const passed = change(frame, vlan);
      if (passed !== undefined && to.writable) to.write(passed);
    });
    from.on("data", (bytes: Buffer) => void split(bytes));
    from.on("error", () => {});
  };
  join(outside, inside, untagged);
  join(inside, outside, tagged);
  return {
    ...access,
    async close() {
      outside.destroy();
      inside.destroy();
      await access.close();
    },
  };
}

/** `frame` has its length in front, which grows by the tag's. */
function tagged(frame: Buffer, vlan: number): Buffer | undefined {
  const at = lengthBytes + addressBytes;
  const tag = Buffer.alloc(4);
  tag.writeUInt16BE(tagProtocol, 0);
  tag.writeUInt16BE(vlan, 2);
  const out = Buffer.concat([frame.subarray(0, at), tag, frame.subarray(at)]);
  out.writeUInt32BE(frame.length - lengthBytes + tag.length, 0);
  return out;
}

function untagged(frame: Buffer, vlan: number): Buffer | undefined {
  const at = lengthBytes + addressBytes;
  if (frame.length < at + 4 || frame.readUInt16BE(at) !== tagProtocol) return undefined;
  if ((frame.readUInt16BE(at + 2) & 0x0fff) !== vlan) return undefined;
  const out = Buffer.concat([frame.subarray(0, at), frame.subarray(at + 4)]);
  out.writeUInt32BE(frame.length - lengthBytes - 4, 0);
  return out;
}
