import { randomUUID } from "node:crypto";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Clock } from "./clock.ts";
import type { Journal } from "./journal.ts";
import { type Task, taskSchema } from "./schema.ts";

type Mutable<Value> = { -readonly [K in keyof Value]: Value[K] };

/** A running task's own face: it reports, and stops when `signal` aborts. */
export interface TaskHandle {
  readonly id: string;
  readonly signal: AbortSignal;
  /** False once it has ended. */
  readonly running: boolean;
  phase(name: string, total?: number | null): void;
  bytes(done: number): void;
  percent(value: number): void;
  end(state: "done" | "failed" | "cancelled", failure?: string): void;
}

/** Ended tasks that are still shown. */
const keptTasks = 100;

/** Its progress is written to the journal at most this often; what it becomes, at once. */
const journalMs = 5_000;

export const interrupted = "Interrupted: the node's api was restarted.";

/**
 * What runs, and what ran. The list outlasts a restart of api; what a task works on stands in policy,
 * whose owner finishes or undoes it at the next start. Here it is then failed, as interrupted.
 */
export class TaskList {
  readonly #clock: Clock;
  readonly #journal: Journal | undefined;
  readonly #tasks = new Map<string, { task: Mutable<Task>; cancel: AbortController }>();
  readonly #listeners = new Set<() => void>();

  constructor(clock: Clock, journal?: Journal) {
    this.#clock = clock;
    this.#journal = journal;
    for (const kept of journal?.tasks() ?? []) {
      const parsed = taskSchema.safeParse(kept);
      // Of another release: only its line in the list is lost.
      if (!parsed.success) continue;
      const task: Mutable<Task> = parsed.data;
      this.#tasks.set(task.id, { task, cancel: new AbortController() });
      if (task.state !== "running") continue;
      Object.assign(task, { state: "failed", failure: interrupted, endedAt: clock.now() });
      journal?.keepTask(task.id, task.startedAt, task);
    }
    this.#dropOldest();
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

  /** Asks it to stop; it has when its state says so. NOT_FOUND; CONFLICT if it ended otherwise. */
  cancel(id: string): Task {
    const entry = this.#tasks.get(id);
    if (entry === undefined) {
      throw new KeelsonError("NOT_FOUND", `There is no task ${id}.`, {
        object: id,
        remedy: `The newest ${keptTasks} are kept.`,
      });
    }
    const { state, title } = entry.task;
    if (state === "done" || state === "failed") {
      throw new KeelsonError("CONFLICT", `${title}: this task has ended (${state}).`, {
        object: id,
        remedy: "Undo what it made instead, such as deleting the image.",
      });
    }
    entry.cancel.abort(new KeelsonError("CANCELLED", "Cancelled."));
    return { ...entry.task };
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
    const listenersHear = () => {
      for (const listener of this.#listeners) listener();
    };
    let keptAtMs = 0;
    const keep = () => {
      keptAtMs = this.#clock.bootMs();
      this.#journal?.keepTask(id, task.startedAt, task);
    };
    const told = () => {
      if (this.#clock.bootMs() - keptAtMs >= journalMs) keep();
      listenersHear();
    };
    keep();
    listenersHear();
    return {
      id,
      signal: cancel.signal,
      get running() {
        return task.state === "running";
      },
      phase: (name, total = null) => {
        task.phase = name;
        task.progressPercent = null;
        task.bytesDone = total === null ? null : 0;
        task.bytesTotal = total;
        keep();
        listenersHear();
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
        keep();
        listenersHear();
      },
    };
  }

  #dropOldest(): void {
    for (const [id, { task }] of this.#tasks) {
      if (this.#tasks.size <= keptTasks) return;
      if (task.state === "running") continue;
      this.#tasks.delete(id);
      this.#journal?.dropTask(id);
    }
  }
}
