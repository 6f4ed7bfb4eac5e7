/**
 * The addon's TypeScript face. `native` is undefined when the addon isn't built or can't load
 * (another architecture, Deno without --allow-ffi): each user then takes its fall-back.
 */
import { spawnSync } from "node:child_process";

/** sd_notify(3). Without NOTIFY_SOCKET it does nothing. */
export function notify(state: string): void {
  if (process.env.NOTIFY_SOCKET === undefined) return;
  spawnSync("systemd-notify", state.split("\n"), { stdio: "ignore" });
}
