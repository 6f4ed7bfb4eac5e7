/**
 * A flood of log-ins in a process of its own: URL PER-SECOND SECONDS. Each comes from another
 * address of 127.0.0.0/8, half of them for `admin`. Prints how many ended with which status.
 */
import { Agent, request } from "node:http";

const [url, perSecond, seconds] = [
  process.argv[2],
  Number(process.argv[3]),
  Number(process.argv[4]),
];
const counts: Record<string, number> = {};
const agent = new Agent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY });
/** All are sent, if later than planned on a machine that has much else to do. */
const total = perSecond * seconds;
let sent = 0;
let open = 0;

function attempt(index: number): void {
  const localAddress = `127.${1 + (index % 200)}.${(index >> 3) % 250}.${1 + (index % 250)}`;
  const user = index % 2 === 0 ? "admin" : `somebody-${index}`;
  const outgoing = request(`${url}/api/v1/session`, {
    method: "POST",
    agent,
    localAddress,
    headers: { "content-type": "application/json" },
  });
  const end = (result: string) => {
    counts[result] = (counts[result] ?? 0) + 1;
    open--;
  };
  open++;
  outgoing.once("response", (answer) => {
    answer.resume();
    answer.once("end", () => end(String(answer.statusCode)));
  });
  outgoing.once("error", (error: NodeJS.ErrnoException) => end(error.code ?? "error"));
  outgoing.end(JSON.stringify({ user, password: `guess ${index}` }));
}

const startedMs = performance.now();
const timer = setInterval(() => {
  const due = Math.min(total, ((performance.now() - startedMs) / 1000) * perSecond);
  while (sent < due) attempt(sent++);
  if (sent < total) return;
  clearInterval(timer);
  const wait = setInterval(() => {
    if (open > 0) return;
    clearInterval(wait);
    console.log(JSON.stringify({ sent, counts }));
  }, 20);
}, 5);
