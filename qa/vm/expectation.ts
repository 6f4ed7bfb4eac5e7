import { KeelsonError } from "#lib/model/errors.ts";

/** INTERNAL with `otherwise`, what is so instead, unless it holds. */
export function expectThat(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new KeelsonError("INTERNAL", otherwise);
}
