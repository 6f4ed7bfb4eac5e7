/** All scenarios of `npm run vm`, in the order of `--all`. */
import { applianceCommandScenario } from "./appliance-command.ts";
import { consoleScenario } from "./console.ts";
import { databaseScenario } from "./database.ts";
import { installScenario } from "./install.ts";
import { netbootScenario } from "./netboot.ts";
import { networkScenario } from "./network.ts";
import { releaseDayScenario } from "./release-day.ts";
import { rollbackScenario } from "./rollback.ts";
import type { Scenario } from "./scenario.ts";
import { tpmScenario } from "./tpm.ts";
import { upgradeScenario } from "./upgrade.ts";

export const scenarios: readonly Scenario[] = [
  installScenario,
  consoleScenario,
  netbootScenario,
  databaseScenario,
  networkScenario,
  tpmScenario,
  applianceCommandScenario,
  upgradeScenario,
  rollbackScenario,
  releaseDayScenario,
];
