/** Short answers to what the person just did. Errors stay until closed. */
import { signal } from "@preact/signals";
import { asFailure } from "../client.ts";
import { Icon } from "./icon.tsx";

interface Message {
  readonly id: number;
  readonly tone: "good" | "bad";
  readonly title: string;
  readonly detail: string | undefined;
}

const messages = signal<readonly Message[]>([]);
let lastId = 0;

function close(id: number): void {
  messages.value = messages.value.filter((message) => message.id !== id);
}

function show(tone: Message["tone"], title: string, detail: string | undefined): void {
  const id = ++lastId;
  messages.value = [...messages.value.slice(-3), { id, tone, title, detail }];
  if (tone === "good") setTimeout(() => close(id), 5000);
}

export function say(title: string): void {
  show("good", title, undefined);
}

export function complain(error: unknown): void {
  const failure = asFailure(error);
  show("bad", failure.title, failure.detail);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {messages.value.map((message) => (
        <div key={message.id} class={`toast ${message.tone}`}>
          <Icon name={message.tone === "good" ? "check" : "wrong"} />
          <div>
            <b>{message.title}</b>
            {message.detail === undefined ? null : <p class="soft">{message.detail}</p>}
          </div>
          <button
            type="button"
            class="button icon-only"
            aria-label="Close message"
            onClick={() => close(message.id)}
          >
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}
