/** All scenarios of `npm run vm`, in the order of `--all`. */
import { installScenario } from "./install.ts";
import { netbootScenario } from "./netboot.ts";
import type { Scenario } from "./scenario.ts";

export const scenarios: readonly Scenario[] = [installScenario, netbootScenario];
