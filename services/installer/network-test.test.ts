import { expect, test } from "vitest";
import { isNeighbour } from "./network-test.ts";

const table = `IP address       HW type     Flags       HW address            Mask     Device
10.0.2.2         0x1         0x2         52:55:0a:00:02:02     *        enp0s6
10.0.2.3         0x1         0x0         00:00:00:00:00:00     *        enp0s6
10.0.2.4         0x1         0x6         52:55:0a:00:02:04     *        enp0s7
`;

test.each([
  ["answered", "10.0.2.2", "enp0s6", true],
  ["answered, on another port", "10.0.2.2", "enp0s7", false],
  ["asked, without an answer", "10.0.2.3", "enp0s6", false],
  ["entered for good by a person", "10.0.2.4", "enp0s7", true],
  ["never asked", "10.0.2.5", "enp0s6", false],
  ["a part of another address", "10.0.2", "enp0s6", false],
])("a gateway that was %s", (_, address, device, there) => {
  expect(isNeighbour(table, address, device)).toBe(there);
});
