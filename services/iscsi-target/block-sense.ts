/** What an initiator is told when the store refuses a request. */
import { BlockStatus } from "#lib/volume/block.ts";
import { Sense } from "#lib/wire/scsi/sense.ts";

export function senseOf(status: BlockStatus): number {
  switch (status) {
    case BlockStatus.noSpace:
      return Sense.spaceAllocationFailed;
    case BlockStatus.mediaError:
      return Sense.unrecoveredReadError;
    case BlockStatus.outOfRange:
      return Sense.lbaOutOfRange;
    case BlockStatus.badHandle:
      return Sense.becomingReady;
    case BlockStatus.readOnly:
      return Sense.writeProtected;
    default:
      return Sense.internalTargetFailure;
  }
}
