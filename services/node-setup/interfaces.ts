/** Which network interface an answer means. */
import { readdirSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { parseMacAddress } from "#lib/model/ids.ts";

export interface InterfaceFacts {
  readonly name: string;
  readonly mac: string;
}

/** Ethernet interfaces with hardware behind them, in the order of their names' numbers. */
export function listInterfaces(folder = "/sys/class/net"): InterfaceFacts[] {
  return readdirSync(folder)
    .filter((name) => {
      try {
        realpathSync(join(folder, name, "device"));
        return readFileSync(join(folder, name, "type"), "utf8").trim() === "1";
      } catch {
        return false;
      }
    })
    .map((name) => ({ name, mac: readFileSync(join(folder, name, "address"), "utf8").trim() }))
    .sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

/** The interface that `selector` (`first`, a name, a MAC) means; `first` skips those in `taken`. */
export function resolveInterface(
  selector: string,
  interfaces: readonly InterfaceFacts[],
  taken: readonly string[] = [],
): InterfaceFacts | undefined {
  if (selector === "first") return interfaces.find(({ name }) => !taken.includes(name));
  const mac = parseMacAddress(selector);
  return interfaces.find((each) =>
    mac === undefined ? each.name === selector : parseMacAddress(each.mac) === mac,
  );
}
