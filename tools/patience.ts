/** vitest waits a second where a test says nothing; on a busy machine only a hang is to end one. */
import { vi } from "vitest";

export const patienceMs = 60_000;

const { waitFor } = vi;
vi.waitFor = (callback, options) =>
  waitFor(
    callback,
    typeof options === "number" ? options : { timeout: patienceMs, interval: 20, ...options },
  );
