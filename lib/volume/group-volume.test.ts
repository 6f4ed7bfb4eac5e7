/** What needs members that refuse; the rest of a group is the simulator's (qa/sim/group-run.ts). */
import { expect, test } from "vitest";
import { noVersion, type Version } from "#lib/model/writer.ts";
import { BlockOp, BlockStatus, type OpenVolume } from "./block.ts";
import { GroupVolume, type MemberLink } from "./group-volume.ts";

const full = 7;

/** Does everything at once, but for a change with sequence `full`. */
class Member implements MemberLink {
  version: Version = noVersion;
  opens = 0;

  open(_generation: number, done: (result: OpenVolume | BlockStatus) => void): void {
    const { version } = this;
    done({
      ...{ volumeId: "" as never, handle: this.opens++, sizeBytes: 2 ** 20, readOnly: false },
      ...{ generation: 1, version, flushed: noVersion, partly: false },
    });
  }

  close(): void {}

  send(...[, { version, op, done }]: Parameters<MemberLink["send"]>): void {
    const refused = version.sequence === full && op === BlockOp.write;
    if (op === BlockOp.write && !refused) this.version = version;
    done(refused ? BlockStatus.noSpace : BlockStatus.ok, new Uint8Array(0));
  }
}

test("a change that all refuse is nobody's: a flush after it makes no member that returns stale", () => {
  const members = [new Member(), new Member()];
  const stale: number[] = [];
  const opens: (() => void)[] = [];
  const links = members.map((member) => ({
    open: (...args: Parameters<MemberLink["open"]>) => void opens.push(() => member.open(...args)),
    close: () => member.close(),
    send: (...args: Parameters<MemberLink["send"]>) => member.send(...args),
  }));
  const open = () => {
    for (const each of opens.splice(0)) each();
  };
  const volume = new GroupVolume({
    links,
    keepBytes: 2 ** 20,
    recordStale: (member) => stale.push(member),
    opened: (result) => expect(typeof result).toBe("object"),
  });
  open();
  const answers: BlockStatus[] = [];
  const ask = (op: BlockOp) =>
    volume.submit(
      ...([op, 0, 512, 0, new Uint8Array(512), () => {}] as const),
      (status) => void answers.push(status),
    );
  for (let sequence = 1; sequence <= full; sequence++) ask(BlockOp.write);
  ask(BlockOp.flush);
  expect(answers).toEqual([0, 0, 0, 0, 0, 0, BlockStatus.noSpace, 0]);
  volume.memberLost(1);
  open();
  expect(stale).toEqual([]);
  ask(BlockOp.write);
  expect(answers.at(-1)).toBe(BlockStatus.ok);
  expect(members.map(({ version }) => version.sequence)).toEqual([full + 1, full + 1]);
});
