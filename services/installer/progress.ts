/** Progress: percent of all bytes, and the time left by the speed so far. Pure but for its clock. */
import { formatDuration } from "#lib/model/duration.ts";

export interface Progress {
  /** `doneBytes` more are done. */
  advance(doneBytes: number): void;
  /** The current step, told with the percentage. */
  step(name: string): void;
}

export interface ProgressState {
  readonly percent: number;
  readonly step: string;
  /** Null until there is a speed. */
  readonly leftMs: number | null;
}

export interface ProgressOptions {
  readonly totalBytes: number;
  /** A line for a log: at each step, and every five percent. */
  readonly print: (line: string) => void;
  /** Each step and each percent. */
  readonly show?: (state: ProgressState) => void;
  readonly nowMs: () => number;
}

const linePercent = 5;

export function createProgress(options: ProgressOptions): Progress {
  const { totalBytes, print, show, nowMs } = options;
  const started = nowMs();
  let doneBytes = 0;
  let printedPercent = 0;
  let shownPercent = 0;
  let name = "";
  const leftMs = () => {
    if (doneBytes === 0) return null;
    return ((nowMs() - started) / doneBytes) * Math.max(0, totalBytes - doneBytes);
  };
  const percent = () => Math.min(100, Math.floor((doneBytes / Math.max(1, totalBytes)) * 100));
  return {
    step(next) {
      name = next;
      print(`  ${percentText(percent())}  ${name}`);
      show?.({ percent: percent(), step: name, leftMs: leftMs() });
    },
    advance(bytes) {
      doneBytes += bytes;
      const now = percent();
      if (now > shownPercent) {
        shownPercent = now;
        show?.({ percent: now, step: name, leftMs: leftMs() });
      }
      if (now < printedPercent + linePercent) return;
      printedPercent = now - (now % linePercent);
      print(`  ${percentText(now)}  ${name}, ${formatDuration(leftMs() ?? 0)} left`);
    },
  };
}

function percentText(percent: number): string {
  return `${percent} %`.padStart(5);
}
