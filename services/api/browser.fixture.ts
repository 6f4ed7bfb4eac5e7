/**
 * A browser as far as log-in needs one: follows redirects by hand, keeps cookies per host (as
 * browsers do: not per port), sends forms. Over real TLS on loopback.
 */
import { Agent, fetch as undiciFetch } from "undici";

export interface Page {
  readonly url: URL;
  readonly status: number;
  readonly location: string | null;
  readonly headers: Headers;
  readonly text: string;
}

export class FixtureBrowser {
  readonly #agent: Agent;
  readonly #cookies = new Map<string, Map<string, string>>();

  constructor() {
    this.#agent = new Agent({ connect: { rejectUnauthorized: false } });
  }

  /** One request, its redirect not followed. */
  async open(
    address: string | URL,
    init: { method?: string; body?: string; headers?: Record<string, string> } = {},
  ): Promise<Page> {
    const url = new URL(address);
    const cookies = this.#jar(url);
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await undiciFetch(url, {
      ...init,
      headers: { ...init.headers, ...(cookie === "" ? {} : { cookie }) },
      redirect: "manual",
      dispatcher: this.#agent,
    });
    for (const line of answer.headers.getSetCookie()) {
      const [pair, ...attributes] = line.split(";").map((part) => part.trim());
      const [name, ...value] = pair.split("=");
      const ended = attributes.some((text) => /^max-age=0$/i.test(text));
      if (ended || value.join("=") === "") cookies.delete(name);
      else cookies.set(name, value.join("="));
    }
    return {
      ...{ url, status: answer.status, location: answer.headers.get("location") },
      headers: answer.headers as unknown as Headers,
      text: await answer.text(),
    };
  }

  /** Follows redirects until `stop` says so of the next address, or there is none. */
  async visit(address: string | URL, stop: (next: URL) => boolean = () => false): Promise<Page> {
    let page = await this.open(address);
    for (let hops = 0; page.location !== null; hops++) {
      if (hops > 20) throw new Error(`Too many redirects, last to ${page.location}`);
      const next = new URL(page.location, page.url);
      if (stop(next)) return page;
      page = await this.open(next);
    }
    return page;
  }

  async submit(address: string | URL, fields: Record<string, string>): Promise<Page> {
    const page = await this.open(address, {
      method: "POST",
      body: new URLSearchParams(fields).toString(),
      headers: { "content-type": "application/x-www-form-urlencoded" },
    });
    return page.location === null ? page : await this.visit(new URL(page.location, page.url));
  }

  cookie(url: string | URL, name: string): string | undefined {
    return this.#jar(new URL(url)).get(name);
  }

  setCookie(url: string | URL, name: string, value: string): void {
    this.#jar(new URL(url)).set(name, value);
  }

  async close(): Promise<void> {
    await this.#agent.close();
  }

  #jar({ hostname }: URL): Map<string, string> {
    let jar = this.#cookies.get(hostname);
    if (jar === undefined) {
      jar = new Map();
      this.#cookies.set(hostname, jar);
    }
    return jar;
  }
}
