/** A sector is full of its stamp and number: a torn or misplaced one is none. */
export function writeStamp(bytes: Uint8Array, at: number, sector: number, stamp: number): void {
  const { words } = viewsOf(bytes.buffer);
  const first = (bytes.byteOffset + at) / 4;
  for (let i = first; i < first + 128; i += 2) {
    words[i] = stamp;
    words[i + 1] = sector;
  }
}

/** `at` in whole sectors of the buffer. -1: it is no stamp of this sector. */
export function readStamp(bytes: Uint8Array, at: number, sector: number): number {
  const { words, pairs } = viewsOf(bytes.buffer);
  const first = (bytes.byteOffset + at) / 8;
  const stamp = words[2 * first];
  if (words[2 * first + 1] !== (stamp === 0 ? 0 : sector)) return -1;
  // Stamp and number as one: half of the comparisons. No pair of small numbers is NaN. Four at a
  // time: a run spends a good part of its time here.
  const pair = pairs[first];
  for (let i = first; i < first + 64; i += 4) {
    if (pairs[i] !== pair || pairs[i + 1] !== pair) return -1;
    if (pairs[i + 2] !== pair || pairs[i + 3] !== pair) return -1;
  }
  return stamp;
}

interface Views {
  readonly words: Uint32Array;
  readonly pairs: Float64Array;
}

let last: Views = { words: new Uint32Array(0), pairs: new Float64Array(0) };

/** Views made for each sector would be most of what a run leaves to the garbage collector. */
function viewsOf(buffer: ArrayBufferLike): Views {
  if (last.words.buffer !== buffer) {
    last = { words: new Uint32Array(buffer), pairs: new Float64Array(buffer) };
  }
  return last;
}
