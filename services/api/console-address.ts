/**
 * By which address people open the console: what somebody set, else the node's own name. Providers
 * send browsers back to it and security keys are bound to its name, so it never comes from a
 * request: whoever makes the request could choose it.
 */
import { KeelsonError } from "#lib/model/errors.ts";
import { type ConsoleAddress, type SecurityKeyRecord, securityKeyHost } from "./identity-schema.ts";
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

  /**
   * Null: back to the node's own name. IN_USE where security keys are bound to the present name,
   * unless they are to go; PERMISSION_DENIED for that without `users:write`.
   */
  async set(
    url: string | null,
    removeKeys: boolean,
    own: readonly string[],
  ): Promise<ConsoleAddress> {
    const name = securityKeyHost(url ?? this.#fallback());
    await this.#policy.change((draft) => {
      const lost = this.#policy.list("security-key").filter((key) => key.rpId !== name);
      if (lost.length > 0) {
        if (!removeKeys) throw keysWouldBeLost(lost);
        if (!own.includes("users:write")) throw notTheirsToRemove();
        for (const { id } of lost) draft.delete("security-key", id);
      }
      if (url === null) draft.delete("console-address", recordId);
      else draft.put("console-address", { id: recordId, url });
    });
    return this.view();
  }
}

function keysWouldBeLost(lost: readonly SecurityKeyRecord[]): KeelsonError {
  const users = [...new Set(lost.map(({ user }) => user))];
  const shown = users.slice(0, 5).join(", ") + (users.length > 5 ? ", ..." : "");
  return new KeelsonError("IN_USE", `Security keys of ${shown} are bound to ${lost[0].rpId}.`, {
    operation: "change the console's address",
    object: lost[0].rpId,
    remedy: "Under another name they are of no use. Say that they are to be removed, or keep it.",
  });
}

function notTheirsToRemove(): KeelsonError {
  return new KeelsonError("PERMISSION_DENIED", "Other people's security keys would be removed.", {
    operation: "change the console's address",
    remedy: "That needs the permission users:write too.",
  });
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
