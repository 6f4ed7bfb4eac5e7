/**
 * The console of an installed node as a state machine: events in, next state and effects out. One
 * state for all lines; it executes nothing.
 *
 *     status <-> menu <-> network <-> backplane      \-- apply --> confirm -- keep, revert, 60 s
 *       ^          \---> password, logs, support, shell, slot, restart, powerOff, reset
 *       \----------------- nobody pressed a key for ten minutes
 */

import type { NetworkConfigInput } from "#lib/network/schema.ts";
import type { Key } from "#lib/terminal/keys.ts";
import type { MediumView } from "#services/installer/schema.ts";
import {
  buttonFocus,
  type FormState,
  focused,
  formState,
  type Page,
  press,
  settle,
} from "../form.ts";
import { networkOf, valuesOf } from "../network-form.ts";
import type { NodeFacts } from "./facts.ts";
import { nodePage, type Place, places, portsOf } from "./pages.ts";

export interface NodeState {
  readonly place: Place;
  readonly form: FormState;
  readonly facts: NodeFacts;
  /** By our own count, between two looks at the network service. */
  readonly secondsLeft: number | undefined;
  readonly log: readonly string[] | undefined;
  readonly media: readonly MediumView[] | undefined;
  readonly support: { readonly url: string; readonly place: string } | undefined;
  readonly notice: string | undefined;
  readonly busy: string | undefined;
  readonly request: number;
}

export type NodeEvent =
  | { readonly kind: "key"; readonly key: Key; readonly line: string }
  | { readonly kind: "facts"; readonly facts: NodeFacts }
  | { readonly kind: "second" }
  /** Nobody has pressed a key for long. */
  | { readonly kind: "idle" }
  | { readonly kind: "applied"; readonly request: number }
  | { readonly kind: "told"; readonly request: number; readonly notice: string; readonly to: Place }
  | { readonly kind: "log"; readonly request: number; readonly lines: readonly string[] }
  | { readonly kind: "media"; readonly request: number; readonly media: readonly MediumView[] }
  | {
      readonly kind: "support";
      readonly request: number;
      readonly url: string;
      readonly place: string;
    }
  | { readonly kind: "failed"; readonly request: number; readonly message: string };

export type Wish =
  | { readonly kind: "apply"; readonly config: NetworkConfigInput }
  | { readonly kind: "keep" | "revert"; readonly id: string }
  | {
      readonly kind: "setPassword";
      readonly password: string;
      readonly removeSecondFactor: boolean;
    }
  | { readonly kind: "readLogs"; readonly search: string }
  | { readonly kind: "listMedia" }
  | { readonly kind: "bundle"; readonly target: string }
  | { readonly kind: "shell"; readonly password: string; readonly line: string }
  | { readonly kind: "restart" | "powerOff" | "otherSlot" }
  | { readonly kind: "reset"; readonly erasePool: boolean };
export type NodeEffect = Wish & { readonly request: number };

export interface NodeTransition {
  readonly state: NodeState;
  readonly effects: readonly NodeEffect[];
}

export const noFacts: NodeFacts = {
  ...{ name: "", version: "", developmentBuild: false, unconfigured: false, units: [] },
  ...{ api: undefined, network: undefined, slots: undefined },
};

/** Fields that hold a secret: emptied as soon as their page is left. */
const secretFields = ["newPassword", "newPasswordAgain", "shellPassword"];

export function initialNode(): NodeState {
  return {
    place: "status",
    form: formState({}),
    facts: noFacts,
    secondsLeft: undefined,
    log: undefined,
    media: undefined,
    support: undefined,
    notice: undefined,
    busy: undefined,
    request: 0,
  };
}

export function pageOf(state: NodeState): Page {
  return nodePage(state.place, { ...state, values: state.form.values });
}

export function nodeTransition(state: NodeState, event: NodeEvent): NodeTransition {
  if ("request" in event && event.request !== state.request) return stay(state);
  switch (event.kind) {
    case "key":
      return onKey(state, event.key, event.line);
    case "facts":
      return onFacts(state, event.facts);
    case "second":
      return stay({
        ...state,
        secondsLeft:
          state.secondsLeft === undefined ? undefined : Math.max(0, state.secondsLeft - 1),
      });
    case "idle":
      return state.place === "confirm" ? stay(state) : go(state, "status");
    case "applied":
      return go({ ...state, busy: undefined }, "confirm");
    case "told":
      return {
        ...stay({ ...go({ ...state, busy: undefined }, event.to).state, notice: event.notice }),
      };
    case "log":
      return stay({ ...state, busy: undefined, log: event.lines });
    case "media":
      return stay({ ...state, busy: undefined, media: event.media });
    case "support":
      return stay({
        ...state,
        busy: undefined,
        support: { url: event.url, place: event.place },
      });
    case "failed":
      return stay({ ...state, busy: undefined, notice: event.message });
  }
}

function stay(state: NodeState): NodeTransition {
  return { state, effects: [] };
}

function onFacts(state: NodeState, facts: NodeFacts): NodeTransition {
  const pending = facts.network?.pending;
  const next = { ...state, facts, secondsLeft: pending?.secondsLeft };
  // Also a change that somebody makes in the browser can be confirmed here.
  if (pending?.applied && state.place === "status") return go(next, "confirm");
  return stay(next);
}

/** Leaves a page for another; secrets don't come along. */
function go(state: NodeState, place: Place): NodeTransition {
  const values = { ...state.form.values };
  for (const id of secretFields) values[id] = "";
  for (const id of ["resetName", "erasePool", "removeSecondFactor"]) values[id] = "";
  const next: NodeState = {
    ...state,
    place,
    form: { ...formState(values), touched: {} },
    ...{ notice: undefined, busy: undefined, request: state.request + 1 },
    ...{ log: undefined, media: undefined, support: undefined },
  };
  const entered = { ...next, form: settle(pageOf(next), next.form) };
  switch (place) {
    case "logs":
      return wish(entered, "Reading the journal ...", {
        kind: "readLogs",
        search: values.search ?? "",
      });
    case "support":
      return wish(entered, "Looking for media ...", { kind: "listMedia" });
    default:
      return stay(entered);
  }
}

function wish(state: NodeState, busy: string, what: Wish): NodeTransition {
  const request = state.request + 1;
  const next = { ...state, busy, request, notice: undefined };
  return { state: next, effects: [{ ...what, request } as NodeEffect] };
}

function onKey(given: NodeState, key: Key, line: string): NodeTransition {
  const escapes = key.kind === "key" && key.name === "escape";
  if (given.busy !== undefined && !escapes) return stay(given);
  const state = { ...given, notice: key.kind === "size" ? given.notice : undefined };
  const page = pageOf(state);
  const before = state.form.focus;
  const { state: form, action } = press(page, state.form, key);
  const typed = { ...state, form };
  if (action === undefined) {
    const entered = key.kind === "key" && key.name === "enter";
    // Enter in the search field searches.
    return state.place === "logs" && before === "search" && entered
      ? go(typed, "logs")
      : stay(typed);
  }
  return act(typed, page, action, line);
}

function act(state: NodeState, page: Page, action: string, line: string): NodeTransition {
  const { values } = state.form;
  const bundle = /^bundle:(.*)$/.exec(action)?.[1];
  if (bundle !== undefined) {
    return wish(state, "Packing; this takes up to a minute ...", {
      kind: "bundle",
      target: bundle,
    });
  }
  if (state.place === "menu" && (places as readonly string[]).includes(action)) {
    return enterPlace(state, action as Place);
  }
  switch (action) {
    case "back":
      return goBack(state);
    case "menu":
    case "logs":
      return go(state, action);
    case "backplane":
      return keepValues(state, "backplane");
    case "older":
      return scrolled(state, -10);
    case "newer":
      return scrolled(state, 10);
    case "readLogs":
      return go(state, "logs");
    case "otherSlot":
      return wish(state, "Restarting with the other version ...", { kind: "otherSlot" });
    case "restart":
      return wish(state, "Restarting ...", { kind: "restart" });
    case "powerOff":
      return wish(state, "Shutting down ...", { kind: "powerOff" });
  }
  const pending = state.facts.network?.pending;
  if (action === "keep" || action === "revert") {
    if (pending == null) return stay(state);
    return wish(state, action === "keep" ? "Keeping ..." : "Going back ...", {
      kind: action,
      id: pending.id,
    });
  }
  const wrong = problemIn(state, page);
  if (wrong !== undefined) return stay(wrong);
  switch (action) {
    case "apply": {
      const other = otherPageProblem(state);
      if (other !== undefined) return stay({ ...state, notice: other });
      return wish(state, "Applying ...", {
        kind: "apply",
        config: networkOf(values, state.facts.network?.config),
      });
    }
    case "setPassword":
      return wish(state, "Setting the password ...", {
        kind: "setPassword",
        password: values.newPassword ?? "",
        removeSecondFactor: values.removeSecondFactor === "yes",
      });
    case "openShell":
      return wish(state, "Opening ...", {
        kind: "shell",
        password: values.shellPassword ?? "",
        line,
      });
    case "reset":
      return wish(state, "Resetting and restarting ...", {
        kind: "reset",
        erasePool: values.erasePool === "yes",
      });
    default:
      return stay(state);
  }
}

/** The first thing that is wrong on the page gets the focus; undefined if nothing is. */
function problemIn(state: NodeState, page: Page): NodeState | undefined {
  const wrong = Object.keys(page.problems ?? {});
  if (wrong.length === 0) return undefined;
  const touched = { ...state.form.touched };
  for (const id of wrong) touched[id] = true;
  const form = { ...state.form, touched };
  const first = page.fields.find((field) => field.kind !== "line" && wrong.includes(field.id));
  if (first === undefined || first.kind === "line") return { ...state, form };
  const focus = first.kind === "option" ? `${first.id}=${first.value}` : first.id;
  return { ...state, form: focused(page, form, focus) };
}

/** The LAN's and the backplane's page are applied as one. */
function otherPageProblem(state: NodeState): string | undefined {
  const other = pageOf({ ...state, place: state.place === "network" ? "backplane" : "network" });
  const [problem] = Object.values(other.problems ?? {});
  return problem === undefined ? undefined : `${other.title}: ${problem}`;
}

function enterPlace(state: NodeState, place: Place): NodeTransition {
  if (place !== "network") return go(state, place);
  const { network } = state.facts;
  if (network === undefined) return stay(state);
  if (network.pending !== null) return go(state, "confirm");
  const form = { ...state.form };
  const values = { ...form.values, ...valuesOf(network.config, portsOf(state.facts)) };
  return go({ ...state, form: { ...form, values } }, "network");
}

function keepValues(state: NodeState, place: Place): NodeTransition {
  return stay({ ...state, place, form: { ...state.form, focus: "", offset: 0 } });
}

function goBack(state: NodeState): NodeTransition {
  switch (state.place) {
    case "status":
      return stay(state);
    case "backplane":
      return keepValues(state, "network");
    case "menu":
    case "confirm":
      return go(state, "status");
    default:
      return go(state, "menu");
  }
}

function scrolled(state: NodeState, by: number): NodeTransition {
  const focus = state.form.focus || buttonFocus("older");
  const offset = Math.max(0, state.form.offset + by);
  return stay({ ...state, form: { ...state.form, focus, offset } });
}
