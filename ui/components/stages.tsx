/** How far a machine got: dhcp > loader > script > san > os. */

import type { BootStage, Client } from "../../services/api/schema.ts";
import { clockOffsetMs, now } from "./time.tsx";

export const bootStages = [
  "dhcp",
  "loader",
  "script",
  "san",
  "os",
] as const satisfies readonly BootStage[];

const titles: Record<BootStage, readonly [label: string, meaning: string]> = {
  dhcp: ["DHCP", "It asked for an address"],
  loader: ["Loader", "It fetched its network boot loader"],
  script: ["Script", "It fetched its boot script"],
  san: ["Disk", "Its loader logged in to its disk"],
  os: ["System", "Its operating system runs from its disk"],
};

/** A boot that moved in the last two minutes is under way; one at `os` has arrived. */
export function Stages({ client }: { client: Client }) {
  if (client.stage === null)
    return <span class="soft small">Not seen since this node started</span>;
  const current = bootStages.indexOf(client.stage);
  const kind =
    client.failure !== null
      ? "failed"
      : client.stage === "os"
        ? "done"
        : now.value + clockOffsetMs.value - Date.parse(client.lastSeenAt) < 120_000
          ? "moving"
          : "halted";
  return (
    <div class="boot">
      <ol class={`stages ${kind}`} aria-label={`Boot stage: ${titles[client.stage][1]}`}>
        {bootStages.map((stage, index) => {
          const at = client.stages.findLast((entry) => entry.stage === stage);
          return (
            <li
              key={stage}
              class={index < current ? "past" : index === current ? "now" : ""}
              title={at === undefined ? titles[stage][1] : `${titles[stage][1]} ${at.detail ?? ""}`}
              {...(index === current ? { "aria-current": "step" } : {})}
            >
              {titles[stage][0]}
            </li>
          );
        })}
      </ol>
    </div>
  );
}
