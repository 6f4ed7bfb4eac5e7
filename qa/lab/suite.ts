/**
 * What a lab suite is. A suite is one function: it builds its own network and services out of the
 * `Lab` it gets, and calls `lab.test(name, run)` for each thing it shows. Whatever it made through
 * `lab` is taken down when the suite ends, also after a failure.
 *
 *   export const tftp: Suite = {
 *     name: "tftp",
 *     summary: "tftp-hpa against netboot's TFTP",
 *     needs: ["tftp"],
 *     async run(lab) {
 *       const segment = await lab.segment();
 *       const node = await segment.host("node", "10.77.0.1/24");
 *       const server = await lab.service(node, "netboot", ["--no-http"]);
 *       await lab.test("reads a loader byte for byte", async () => { ... throw on failure ... });
 *     },
 *   };
 *
 * Add it to `suites.ts`.
 */
import type { Lab } from "./lab.ts";

export interface Suite {
  /** For `--only`; lower case, unique. */
  readonly name: string;
  /** One line for `--list`. */
  readonly summary: string;
  /** Programs that must be on PATH; a missing one fails the suite with its name. */
  readonly needs: readonly string[];
  run(lab: Lab): Promise<void>;
}
