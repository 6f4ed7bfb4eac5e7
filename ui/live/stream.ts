/**
 * Server-sent events over fetch. EventSource hides the comments that keep a connection alive, so
 * with it a dead connection looks like a quiet one; here every byte counts as a sign of life.
 */
export interface StreamEvent {
  readonly event: string;
  readonly data: string;
  readonly id: string | undefined;
}

/** Splits a stream's text into events (WHATWG HTML, section 9.2.6). */
export class EventParser {
  #rest = "";

  push(text: string): StreamEvent[] {
    const blocks = (this.#rest + text).replaceAll("\r\n", "\n").split("\n\n");
    this.#rest = blocks.pop() ?? "";
    return blocks.map(parseBlock).filter((event) => event !== undefined);
  }
}

function parseBlock(block: string): StreamEvent | undefined {
  let event = "message";
  let id: string | undefined;
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "event") event = value;
    else if (field === "data") data.push(value);
    else if (field === "id") id = value;
  }
  return data.length === 0 ? undefined : { event, data: data.join("\n"), id };
}

export interface StreamHandlers {
  onOpen(): void;
  /** Any byte came, comments too. */
  onLife(): void;
  onEvent(event: StreamEvent): void;
}

/** Reads until the stream ends, fails, or says nothing for `silenceMs`; resolves with the status. */
export async function readEvents(
  url: string,
  lastEventId: string | undefined,
  stop: AbortSignal,
  silenceMs: number,
  handlers: StreamHandlers,
): Promise<number> {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), silenceMs);
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), silenceMs);
    handlers.onLife();
  };
  try {
    const response = await fetch(url, {
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.any([stop, silence.signal]),
      headers: {
        accept: "text/event-stream",
        ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
      },
    });
    if (!response.ok || response.body === null) return response.status;
    alive();
    handlers.onOpen();
    const parser = new EventParser();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    while (true) {
      const { done, value } = await reader.read();
      if (done) return response.status;
      alive();
      for (const event of parser.push(decoder.decode(value, { stream: true }))) {
        handlers.onEvent(event);
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
