/** Every suite of `npm run lab`, in the order they run: the quick ones first. */
import { boot } from "./boot.ts";
import { dhcp } from "./dhcp.ts";
import { http } from "./http.ts";
import { iscsi } from "./iscsi.ts";
import { pxe } from "./pxe.ts";
import type { Suite } from "./suite.ts";
import { tftp } from "./tftp.ts";

export const suites: readonly Suite[] = [tftp, http, dhcp, iscsi, pxe, boot];
