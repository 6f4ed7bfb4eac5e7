/** Product versions: YYYY.M.PATCH, `+drift` for a build with other packages than the locked ones. */
import { KeelsonError } from "#lib/model/errors.ts";

export const versionPattern = /^(\d{4})\.(0|[1-9]\d?)\.(0|[1-9]\d{0,3})(\+drift)?$/;

export function isVersion(text: string): boolean {
  return versionPattern.test(text);
}

/** Negative if `a` is older than `b`. `+drift` doesn't count. INVALID_ARGUMENT for another form. */
export function compareVersions(a: string, b: string): number {
  const [first, second] = [a, b].map(numbersOf);
  const index = first.findIndex((value, at) => value !== second[at]);
  return index === -1 ? 0 : first[index] - second[index];
}

function numbersOf(text: string): number[] {
  const match = versionPattern.exec(text);
  if (match === null) {
    throw new KeelsonError("INVALID_ARGUMENT", `Version ${text} is not YYYY.M.PATCH.`);
  }
  return match.slice(1, 4).map(Number);
}
