/** The console on an installed node: state, effects, looks at the node, what the lines show. */
import { drawPage } from "./form-view.ts";
import type { Content } from "./line.ts";
import { NodeWorld, type NodeWorldOptions } from "./node/effects.ts";
import {
  initialNode,
  type NodeEvent,
  type NodeState,
  nodeTransition,
  pageOf,
} from "./node/node.ts";
import type { Program, Screen } from "./setup.ts";

/** Quick while the node starts or a change waits, slow once all is well: each look costs processes. */
const soonMs = 3_000;
const steadyMs = 20_000;
const idleMs = 10 * 60_000;

/** Pure: what all lines show. */
export function statusContent(state: NodeState): Content {
  const version = state.facts.version === "" ? "" : ` ${state.facts.version}`;
  return { kind: "page", grid: drawPage(`Keelson${version}`, pageOf(state), state.form) };
}

export function startStatus(options: NodeWorldOptions, screen: Screen): Program {
  const world = new NodeWorld(options);
  let state = initialNode();
  let stopped = false;
  let lookTimer: NodeJS.Timeout | undefined;
  let idleTimer: NodeJS.Timeout | undefined;
  const dispatch = (event: NodeEvent): void => {
    if (stopped) return;
    const next = nodeTransition(state, event);
    state = next.state;
    screen.show(statusContent(state));
    for (const effect of next.effects) {
      void world.carryOut(effect).then((answer) => {
        dispatch(answer);
        void look();
      });
    }
  };
  const look = async (): Promise<void> => {
    clearTimeout(lookTimer);
    const facts = await world.look();
    dispatch({ kind: "facts", facts });
    const steady =
      facts.api !== undefined &&
      facts.network?.pending == null &&
      facts.units.every(({ active }) => active === "active");
    clearTimeout(lookTimer);
    if (!stopped) lookTimer = setTimeout(() => void look(), steady ? steadyMs : soonMs);
  };
  const clock = setInterval(() => {
    if (state.secondsLeft !== undefined) dispatch({ kind: "second" });
  }, 1_000);
  screen.show(statusContent(state));
  void look();
  return {
    onKey(key, line) {
      clearTimeout(idleTimer);
      idleTimer = setTimeout(() => dispatch({ kind: "idle" }), idleMs);
      dispatch({ kind: "key", key, line });
    },
    async stop() {
      stopped = true;
      clearInterval(clock);
      clearTimeout(lookTimer);
      clearTimeout(idleTimer);
    },
  };
}
