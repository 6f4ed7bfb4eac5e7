import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { EventParser, readEvents, type StreamEvent } from "./stream.ts";

describe("the parser of events", () => {
  test("an event that arrives in pieces is whole once its empty line came", () => {
    const text = 'event: change\nid: 7\ndata: {"a":\ndata: 1}\n\n';
    for (let cut = 1; cut < text.length - 1; cut++) {
      const parser = new EventParser();
      const events = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))];
      expect(events).toEqual([{ event: "change", id: "7", data: '{"a":\n1}' }]);
    }
  });

  test("comments are not events, and CRLF ends lines too", () => {
    const parser = new EventParser();
    expect(parser.push(": alive\n\n:\n\nevent: reset\r\ndata: {}\r\n\r\n")).toEqual([
      { event: "reset", id: undefined, data: "{}" },
    ]);
  });
});

describe("a stream over a real connection", () => {
  let server: Server | undefined;
  afterEach(() => {
    server?.closeAllConnections();
    server?.close();
  });

  async function serve(handler: Parameters<typeof createServer>[1]): Promise<string> {
    server = createServer(handler!);
    await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  }

  function follow(url: string, silenceMs: number, lastEventId?: string) {
    const seen: StreamEvent[] = [];
    let opened = 0;
    const ended = readEvents(url, lastEventId, new AbortController().signal, silenceMs, {
      onOpen: () => opened++,
      onLife: () => undefined,
      onEvent: (event) => seen.push(event),
    });
    return { seen, ended, opened: () => opened };
  }

  test("a reconnection says where it left off", async () => {
    let asked: string | string[] | undefined;
    const url = await serve((request, response) => {
      asked = request.headers["last-event-id"];
      response.end("event: change\ndata: 1\n\n");
    });
    const stream = follow(url, 5000, "41");
    expect(await stream.ended).toBe(200);
    expect(asked).toBe("41");
    expect(stream.seen).toEqual([{ event: "change", id: undefined, data: "1" }]);
  });

  test("a connection that goes silent without closing is given up", async () => {
    const url = await serve((_request, response) => {
      response.write(": alive\n\n");
    });
    const stream = follow(url, 200);
    await expect(stream.ended).rejects.toMatchObject({ name: "AbortError" });
    expect(stream.opened()).toBe(1);
  });

  test("comments alone keep it open", async () => {
    const url = await serve((_request, response) => {
      let count = 0;
      const timer = setInterval(() => {
        response.write(": alive\n\n");
        if (++count === 6) {
          clearInterval(timer);
          response.end();
        }
      }, 100);
    });
    expect(await follow(url, 400).ended).toBe(200);
  });

  test("a refusal is told by its status, and nothing counts as opened", async () => {
    const url = await serve((_request, response) => {
      response.writeHead(401).end();
    });
    const stream = follow(url, 5000);
    expect(await stream.ended).toBe(401);
    expect(stream.opened()).toBe(0);
  });
});
