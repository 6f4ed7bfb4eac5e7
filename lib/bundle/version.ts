/** Product versions: YYYY.M.PATCH, `+drift` for a build with other packages than the locked ones. */
import { KeelsonError } from "#lib/model/errors.ts";

const versionPattern = /^(20\d{2})\.([1-9]|1[0-2])\.(0|[1-9]\d{0,3})(\+drift)?$/;

export function isVersion(text: string): boolean {
  return versionPattern.test(text);
}

/** [year, month, patch]; INVALID_ARGUMENT for another form. */
export function versionNumbers(text: string): [year: number, month: number, patch: number] {
  const match = versionPattern.exec(text);
  if (match === null) {
    throw new KeelsonError("INVALID_ARGUMENT", `Version ${text} is not YYYY.M.PATCH.`);
  }
  const [year, month, patch] = match.slice(1, 4).map(Number);
  return [year, month, patch];
}

/** Negative if `a` is older than `b`. `+drift` doesn't count. INVALID_ARGUMENT for another form. */
export function compareVersions(a: string, b: string): number {
  const [first, second] = [versionNumbers(a), versionNumbers(b)];
  const index = first.findIndex((value, at) => value !== second[at]);
  return index === -1 ? 0 : first[index] - second[index];
}
