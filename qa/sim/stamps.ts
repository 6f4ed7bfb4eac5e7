/** A sector is full of its stamp and number: a torn or misplaced one is none. */
export function writeStamp(bytes: Uint8Array, at: number, sector: number, stamp: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, 128);
  for (let i = 0; i < 128; i += 2) {
    words[i] = stamp;
    words[i + 1] = sector;
  }
}

export function readStamp(bytes: Uint8Array, at: number, sector: number): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, 128);
  const stamp = words[0];
  for (let i = 0; i < 128; i += 2) {
    if (words[i] !== stamp || words[i + 1] !== (stamp === 0 ? 0 : sector)) return -1;
  }
  return stamp;
}
