/** Progress as plain lines: percent of all bytes, and the time left by the speed so far. */

export interface Progress {
  /** `doneBytes` more are done. */
  advance(doneBytes: number): void;
  /** The current step, shown with the percentage. */
  step(name: string): void;
}

export interface ProgressOptions {
  readonly totalBytes: number;
  readonly print: (line: string) => void;
  readonly nowMs: () => number;
  /** A line is printed when this much more is done: 5 percent. */
  readonly everyPercent?: number;
}

export function createProgress(options: ProgressOptions): Progress {
  const every = options.everyPercent ?? 5;
  const started = options.nowMs();
  let doneBytes = 0;
  let printedPercent = 0;
  let name = "";
  return {
    step(next) {
      name = next;
      options.print(`  ${percentText(doneBytes, options.totalBytes)}  ${name}`);
    },
    advance(bytes) {
      doneBytes += bytes;
      const percent = percentOf(doneBytes, options.totalBytes);
      if (percent < printedPercent + every) return;
      printedPercent = percent - (percent % every);
      const elapsedMs = options.nowMs() - started;
      const leftMs = (elapsedMs / doneBytes) * Math.max(0, options.totalBytes - doneBytes);
      options.print(
        `  ${percentText(doneBytes, options.totalBytes)}  ${name}, ${formatDuration(leftMs)} left`,
      );
    },
  };
}

function percentOf(doneBytes: number, totalBytes: number): number {
  return Math.min(100, Math.floor((doneBytes / Math.max(1, totalBytes)) * 100));
}

function percentText(doneBytes: number, totalBytes: number): string {
  return `${percentOf(doneBytes, totalBytes)} %`.padStart(5);
}

/** `45 s`, `3 min 10 s`, `2 h 5 min`. */
export function formatDuration(durationMs: number): string {
  const seconds = Math.max(0, Math.round(durationMs / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}
