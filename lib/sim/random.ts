/** A small seeded generator (sfc32): the same seed gives the same run on every machine. */
export class Random {
  private a = 0;
  private b = 0;
  private c = 0;
  private counter = 1;

  constructor(seed: number) {
    this.reseed(seed);
  }

  /** Goes on as a new one of this seed would, or as its `stream`th sibling. */
  reseed(seed: number, stream = 0): void {
    this.a = seed >>> 0;
    this.b = Math.floor(seed / 2 ** 32) ^ 0x9e3779b9;
    this.c = 0x243f6a88 ^ stream;
    this.counter = 1;
    for (let i = 0; i < 15; i++) this.next();
  }

  /** 0 .. 2^32 - 1. */
  next(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = ((this.c << 21) | (this.c >>> 11)) + sum;
    return sum >>> 0;
  }

  /** A whole number in [0, end). */
  below(end: number): number {
    return Math.floor((this.next() / 2 ** 32) * end);
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)];
  }
}
