/** What the installer has to say, for whoever shows it: one view that changes, and its last lines. */
import type { InstallerView } from "./schema.ts";

const linesKept = 200;
/** Longer than this a reader is not kept waiting; it asks again. */
const longPollMs = 25_000;

type Changes = Partial<Omit<InstallerView, "sequence" | "lines">>;

export class Board {
  #view: InstallerView;
  #said = 0;
  #waiting: (() => void)[] = [];

  constructor(view: Omit<InstallerView, "sequence" | "lines">) {
    this.#view = { ...view, sequence: 0, lines: [] };
  }

  get view(): InstallerView {
    return this.#view;
  }

  change(changes: Changes): void {
    const next = { ...this.#view, ...changes };
    const same = (Object.keys(changes) as (keyof Changes)[]).every(
      (name) => JSON.stringify(this.#view[name]) === JSON.stringify(next[name]),
    );
    if (!same) this.#set(next);
  }

  /** Lines as they would scroll over a screen. */
  say(...texts: string[]): void {
    const added = texts.map((text) => ({ number: this.#said++, text }));
    this.#set({ ...this.#view, lines: [...this.#view.lines, ...added].slice(-linesKept) });
  }

  /** The view once it is another than `after`; the present one after a while. */
  async next(after: number | undefined): Promise<InstallerView> {
    if (after !== this.#view.sequence) return this.#view;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, longPollMs);
      timer.unref();
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    return this.#view;
  }

  #set(next: Omit<InstallerView, "sequence">): void {
    this.#view = { ...next, sequence: this.#view.sequence + 1 };
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
