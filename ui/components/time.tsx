/** Times as ages that keep counting; the exact time is in the tooltip. */
import { signal } from "@preact/signals";

/** Ticks once a second: ages on the screen are read from it. */
export const now = signal(Date.now());
setInterval(() => {
  now.value = Date.now();
}, 1000);

/** The node's clock minus this computer's: ages are counted by the node's. */
export const clockOffsetMs = signal(0);

/** `8 s`, `4 min`, `3 h`, `12 d`. */
export function formatAge(ageMs: number): string {
  const seconds = Math.max(0, Math.round(ageMs / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function Age({ at, ago = true }: { at: string | number; ago?: boolean }) {
  const atMs = typeof at === "number" ? at : Date.parse(at);
  if (!Number.isFinite(atMs)) return <span>unknown</span>;
  const ageMs = now.value + clockOffsetMs.value - atMs;
  const age = formatAge(ageMs);
  const text = !ago ? age : ageMs < 2000 ? "just now" : `${age} ago`;
  return (
    <time dateTime={new Date(atMs).toISOString()} title={exact.format(atMs)}>
      {text}
    </time>
  );
}
