/** One comparison in a process of its own: its options as JSON in, its figures as a message out. */
import { explainError } from "#lib/model/errors.ts";
import { comparisons } from "./all.ts";
import type { Figure, NotMeasured } from "./comparison.ts";

export interface ChildOptions {
  readonly name: string;
  readonly rounds: number;
  readonly seconds: number;
  readonly regionBytes: number;
  readonly directory: string;
}

export interface ChildReply {
  readonly figures: readonly (Figure | NotMeasured)[];
}

const options = JSON.parse(process.argv[2]) as ChildOptions;
try {
  const comparison = comparisons.find(({ name }) => name === options.name)!;
  const progress = (line: string) => void process.send!({ progress: line });
  const figures = await comparison.run({ ...options, progress });
  process.send!({ figures } satisfies ChildReply, () => process.exit(0));
} catch (error) {
  console.error(`peers: ${options.name}: ${explainError(error)}`);
  process.exit(2);
}
