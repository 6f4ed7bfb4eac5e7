import { randomUUID } from "node:crypto";
import type { Clock } from "./clock.ts";
import type { Task } from "./schema.ts";

type Mutable<Value> = { -readonly [K in keyof Value]: Value[K] };

/** A running task's own face: it reports, and stops when `signal` aborts. */
export interface TaskHandle {
  readonly id: string;
  readonly signal: AbortSignal;
  phase(name: string, total?: number | null): void;
  bytes(done: number): void;
  percent(value: number): void;
  end(state: "done" | "failed" | "cancelled", failure?: string): void;
}

/** Ended tasks that are still shown. */
const keptTasks = 100;

/** Tasks live as long as api: what must outlast it stands in policy. */
export class TaskList {
  readonly #clock: Clock;
  readonly #tasks = new Map<string, { task: Mutable<Task>; cancel: AbortController }>();
  readonly #listeners = new Set<() => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Newest first. */
  list(): Task[] {
    return [...this.#tasks.values()].map(({ task }) => ({ ...task })).reverse();
  }

  find(id: string): Task | undefined {
    const task = this.#tasks.get(id)?.task;
    return task === undefined ? undefined : { ...task };
  }

  /** The newest task about `subject`. */
  about(subject: string): Task | undefined {
    return this.list().find((task) => task.subject === subject);
  }

  cancel(id: string): boolean {
    const entry = this.#tasks.get(id);
    entry?.cancel.abort();
    return entry !== undefined;
  }

  start(kind: Task["kind"], subject: string, title: string): TaskHandle {
    const id = randomUUID();
    const cancel = new AbortController();
    const task: Mutable<Task> = {
      id,
      kind,
      subject,
      title,
      state: "running",
      phase: "upload",
      progressPercent: null,
      bytesDone: null,
      bytesTotal: null,
      failure: null,
      startedAt: this.#clock.now(),
      endedAt: null,
    };
    this.#tasks.set(id, { task, cancel });
    this.#dropOldest();
    const told = () => {
      for (const listener of this.#listeners) listener();
    };
    told();
    return {
      id,
      signal: cancel.signal,
      phase: (name, total = null) => {
        task.phase = name;
        task.progressPercent = null;
        task.bytesDone = total === null ? null : 0;
        task.bytesTotal = total;
        told();
      },
      bytes: (done) => {
        task.bytesDone = done;
        if (task.bytesTotal !== null && task.bytesTotal > 0) {
          task.progressPercent = Math.min(100, (done / task.bytesTotal) * 100);
        }
        told();
      },
      percent: (value) => {
        task.progressPercent = value;
        told();
      },
      end: (state, failure) => {
        task.state = state;
        task.failure = failure ?? null;
        if (state === "done") task.progressPercent = 100;
        task.endedAt = this.#clock.now();
        told();
      },
    };
  }

  #dropOldest(): void {
    for (const [id, { task }] of this.#tasks) {
      if (this.#tasks.size <= keptTasks) return;
      if (task.state !== "running") this.#tasks.delete(id);
    }
  }
}
