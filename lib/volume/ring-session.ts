/** The store's end of one ring: takes requests from shared memory and puts completions. */
import { completionWords, requestWords } from "#lib/wire/chunk/record.ts";
import { type RingLayout, RingWord } from "#lib/wire/chunk/ring.ts";
import type { Native, NativeMemory } from "#native";
import type { BlockStatus } from "./block.ts";
import type { BlockExecutor } from "./executor.ts";
import { StoreSession } from "./store-session.ts";

export class RingSession {
  readonly session: StoreSession;
  private readonly native: Native;
  private readonly memory: NativeMemory;
  private readonly layout: RingLayout;
  private readonly words: Int32Array;
  private readonly gatewayDoorbell: number;
  private requestPosition = 0;
  private completionPosition = 0;
  private published = 0;
  private broken = false;

  constructor(
    native: Native,
    executor: BlockExecutor,
    memory: NativeMemory,
    layout: RingLayout,
    gatewayDoorbell: number,
    answer: (record: Uint8Array) => void,
  ) {
    this.native = native;
    this.memory = memory;
    this.layout = layout;
    this.gatewayDoorbell = gatewayDoorbell;
    this.words = new Int32Array(memory.buffer, layout.controlOffset, layout.controlBytes / 4);
    const payload = new Uint8Array(memory.buffer, 0, layout.payloadBytes);
    this.session = new StoreSession(
      executor,
      payload,
      memory.slot,
      (tag, status) => this.put(tag, status),
      answer,
    );
    native.ringWatch(
      memory.slot,
      layout.controlOffset + RingWord.requestProducer,
      layout.controlOffset + RingWord.requestConsumer,
      layout.controlOffset + RingWord.storeSleeping,
    );
  }

  /**
   * Executes what the gateway has put. Returns how many requests, or -1 when it broke the
   * protocol: more requests than the ring holds, or completions it never took.
   */
  serve(): number {
    const { words, layout } = this;
    const producer = Atomics.load(words, RingWord.requestProducer / 4);
    const available = (producer - this.requestPosition) >>> 0;
    if (available > layout.entries || this.broken) return -1;
    if (available > 0) {
      const base = layout.requestsOffset / 4;
      const mask = layout.entries - 1;
      for (let index = 0; index < available; index++) {
        this.session.take(words, base + (this.requestPosition & mask) * requestWords);
        this.requestPosition = (this.requestPosition + 1) | 0;
      }
      this.session.run();
      Atomics.store(words, RingWord.requestConsumer / 4, this.requestPosition);
    }
    this.publish();
    return this.broken ? -1 : available;
  }

  private put(tag: number, status: BlockStatus): void {
    const { words, layout } = this;
    const consumer = words[RingWord.completionConsumer / 4];
    if ((this.completionPosition - consumer) >>> 0 >= layout.entries) {
      this.broken = true;
      return;
    }
    const at =
      layout.completionsOffset / 4 +
      (this.completionPosition & (layout.entries - 1)) * completionWords;
    words[at] = tag;
    words[at + 1] = status;
    this.completionPosition = (this.completionPosition + 1) | 0;
  }

  /** Makes completions visible and wakes the gateway if it sleeps. */
  publish(): void {
    if (this.completionPosition === this.published) return;
    this.published = this.completionPosition;
    Atomics.store(this.words, RingWord.completionProducer / 4, this.completionPosition);
    if (Atomics.exchange(this.words, RingWord.gatewaySleeping / 4, 0) === 1) {
      this.native.eventSignal(this.gatewayDoorbell);
    }
  }

  end(): void {
    this.session.end();
    this.native.memoryRelease(this.memory.slot);
  }
}
