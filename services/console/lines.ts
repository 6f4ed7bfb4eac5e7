/** Which terminal lines this machine has. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Virtual terminals that show the console: Alt-F1 to Alt-F3. */
const virtualTerminals = ["tty1", "tty2", "tty3"];

/** Paths below /dev: VTs, serial ports with a chip behind them, hypervisor consoles. */
export function presentLines(classFolder = "/sys/class/tty", deviceFolder = "/dev"): string[] {
  const names = existsSync(classFolder) ? readdirSync(classFolder) : [];
  return names
    .filter((name) => {
      if (virtualTerminals.includes(name) || /^(?:hvc|ttyAMA)\d+$/.test(name)) return true;
      // The kernel makes names for ports that may come; type 0 is no chip (serial_core.h).
      if (!/^ttyS\d+$/.test(name)) return false;
      return readOr(join(classFolder, name, "type"), "0") !== "0";
    })
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }))
    .map((name) => join(deviceFolder, name))
    .filter((path) => existsSync(path));
}

function readOr(path: string, other: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return other;
  }
}
