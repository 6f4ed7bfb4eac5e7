/**
 * The shared memory of a ring:
 *
 *   payload, first: offsets in it are offsets in the memory
 *   control page: one word a cache line, so that the two sides don't share one by accident
 *   requests:     entries x 64 bytes
 *   completions:  entries x 16 bytes, rounded up to a page
 *
 * Positions count up for ever, modulo 2^32; an entry's index is its position modulo `entries`.
 * Each word has one writer. Each side keeps its own positions in private and only publishes them:
 * what the other side writes over them does it no harm.
 */
import { completionBytes, requestBytes } from "./record.ts";

const pageBytes = 4096;

/** Byte offsets of the control words in the control page. */
export const RingWord = {
  /** Gateway: requests it has put. */
  requestProducer: 0,
  /** Store: requests it has taken. */
  requestConsumer: 64,
  /** Store: 1 while it wants a signal for new requests. Either side clears it. */
  storeSleeping: 128,
  /** Store: completions it has put. */
  completionProducer: 192,
  /** Gateway: completions it has taken. */
  completionConsumer: 256,
  /** Gateway: 1 while it wants a signal for new completions. Either side clears it. */
  gatewaySleeping: 320,
} as const;

export interface RingLayout {
  readonly entries: number;
  readonly payloadBytes: number;
  /** Where the control page begins. */
  readonly controlOffset: number;
  /** Control page, requests and completions. */
  readonly controlBytes: number;
  /** From the control page on. */
  readonly requestsOffset: number;
  readonly completionsOffset: number;
  readonly totalBytes: number;
}

/** `entries` is a power of two, `payloadBytes` a multiple of a page. */
export function ringLayout(entries: number, payloadBytes: number): RingLayout {
  const completionsOffset = pageBytes + entries * requestBytes;
  const completionsEnd = completionsOffset + entries * completionBytes;
  const controlBytes = Math.ceil(completionsEnd / pageBytes) * pageBytes;
  return {
    entries,
    payloadBytes,
    controlOffset: payloadBytes,
    controlBytes,
    requestsOffset: pageBytes,
    completionsOffset,
    totalBytes: payloadBytes + controlBytes,
  };
}
