/** The service as its control API sees it. */
import type { ClientView, LeaseView, NetbootConfig, NetbootStatus } from "./schema.ts";

export interface Netboot {
  status(): NetbootStatus;
  config(): NetbootConfig;
  /** STALE_GENERATION if `config` is older than what is applied. */
  configure(config: NetbootConfig): Promise<void>;
  leases(): LeaseView[];
  /** Frees an address at once; NOT_FOUND if it isn't leased. */
  deleteLease(ip: string): Promise<void>;
  clients(): ClientView[];
}
