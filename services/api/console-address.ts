/**
 * By which address people open the console: what somebody set, else the node's own name. Providers
 * send browsers back to it and security keys are bound to its name, so it never comes from a
 * request: whoever makes the request could choose it.
 */
import type { ConsoleAddress } from "./identity-schema.ts";
import { securityKeyHost } from "./identity-schema.ts";
import type { Policy } from "./policy.ts";

const recordId = "console";

export class ConsoleAddresses {
  readonly #policy: Policy;
  readonly #fallback: () => string;

  /** `fallback`: an origin such as https://node-1, for as long as none is set. */
  constructor(policy: Policy, fallback: () => string) {
    this.#policy = policy;
    this.#fallback = fallback;
  }

  /** An origin, without a slash at its end. */
  get url(): string {
    return this.#policy.find("console-address", recordId)?.url ?? this.#fallback();
  }

  /** What WebAuthn calls the relying party's id; null where the console has no host name. */
  get securityKeyName(): string | null {
    return securityKeyHost(this.url);
  }

  view(): ConsoleAddress {
    const { url, securityKeyName } = this;
    return {
      url,
      set: this.#policy.find("console-address", recordId) !== undefined,
      securityKeyName,
      securityKeyProblem: securityKeyName === null ? noHostName(url) : null,
    };
  }

  /** Null: back to the node's own name. */
  async set(url: string | null): Promise<ConsoleAddress> {
    await this.#policy.change((draft) => {
      if (url === null) draft.delete("console-address", recordId);
      else draft.put("console-address", { id: recordId, url });
    });
    return this.view();
  }
}

function noHostName(url: string): string {
  return `Security keys are bound to a host name, and ${url} is a bare address. Give the node a name in DNS and set it as the console's address.`;
}

/** The name that was set, which the node's own certificate must be for too. */
export function consoleNames(policy: Policy): string[] {
  const record = policy.find("console-address", recordId);
  return record === undefined ? [] : [new URL(record.url).hostname.replace(/^\[|\]$/g, "")];
}

/** `https://node-1` with the port api listens on; `http://localhost:PORT` where it has no TLS. */
export function defaultConsoleUrl(
  nodeName: string,
  listening: Readonly<Record<string, string>>,
): string {
  const { https, http } = listening;
  const port = new URL(https ?? http ?? "https://localhost").port;
  const host = https === undefined ? "localhost" : nodeName.toLowerCase();
  const url = (name: string) => `${https === undefined ? "http" : "https"}://${name}:${port}`;
  return new URL(URL.canParse(url(host)) ? url(host) : url("localhost")).origin;
}
