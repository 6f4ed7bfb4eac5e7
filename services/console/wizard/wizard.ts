/**
 * The setup wizard as a state machine: events in, next state and effects out. One state for all
 * lines; it executes nothing.
 *
 *     welcome <-> disk <-> LAN <-> backplane <-> test <-> time <-> password <-> summary --> progress
 *        |                                                           |  \-- save, show
 *        \-- the installer finds an answer file: lines, no pages      \-- refused: back here
 */
import type { Key } from "#lib/terminal/keys.ts";
import type { InstallerView, MediumView, PlanView, Probe } from "#services/installer/schema.ts";
import {
  buttonFocus,
  type FormState,
  focused,
  formState,
  type Page,
  press,
  settle,
} from "../form.ts";
import { answersText, initialValues } from "./answers.ts";
import {
  passwordProblems,
  type Side,
  type Step,
  type StepFacts,
  savePage,
  showPage,
  stepPage,
  steps,
} from "./steps.ts";

export interface WizardState {
  readonly step: Step;
  readonly side: Side | undefined;
  readonly form: FormState;
  readonly view: InstallerView | undefined;
  readonly passwordHash: string | undefined;
  readonly probes: readonly Probe[] | undefined;
  readonly plan: PlanView | undefined;
  readonly media: readonly MediumView[] | undefined;
  readonly notice: string | undefined;
  /** What is being waited for, in words; keys but Esc wait with it. */
  readonly busy: string | undefined;
  /** Answers to effects of an older request are dropped. */
  readonly request: number;
}

export type WizardEvent =
  | { readonly kind: "key"; readonly key: Key }
  | { readonly kind: "view"; readonly view: InstallerView }
  | { readonly kind: "hashed"; readonly request: number; readonly hash: string }
  | { readonly kind: "probed"; readonly request: number; readonly probes: readonly Probe[] }
  | { readonly kind: "planned"; readonly request: number; readonly plan: PlanView }
  | { readonly kind: "media"; readonly request: number; readonly media: readonly MediumView[] }
  | { readonly kind: "saved"; readonly request: number; readonly place: string }
  | { readonly kind: "started"; readonly request: number }
  | { readonly kind: "failed"; readonly request: number; readonly message: string };

export type WizardEffect =
  | { readonly kind: "attend"; readonly attended: boolean }
  | { readonly kind: "hash"; readonly request: number; readonly password: string }
  | { readonly kind: "probe"; readonly request: number; readonly text: string }
  | { readonly kind: "plan"; readonly request: number; readonly text: string }
  | { readonly kind: "listMedia"; readonly request: number }
  | {
      readonly kind: "save";
      readonly request: number;
      readonly device: string;
      readonly text: string;
    }
  | { readonly kind: "install"; readonly request: number; readonly text: string }
  | { readonly kind: "power"; readonly request: number; readonly action: "reboot" | "poweroff" };

export interface Transition {
  readonly state: WizardState;
  readonly effects: readonly WizardEffect[];
}

export function initialWizard(): WizardState {
  return {
    step: "welcome",
    side: undefined,
    form: formState(initialValues),
    view: undefined,
    passwordHash: undefined,
    probes: undefined,
    plan: undefined,
    media: undefined,
    notice: undefined,
    busy: undefined,
    request: 0,
  };
}

/** The page that is shown; undefined until the installer has said anything. */
export function wizardPage(state: WizardState): Page | undefined {
  const facts = factsOf(state);
  if (facts === undefined) return undefined;
  if (state.side === "save") return savePage(facts);
  if (state.side === "show") return showPage(facts);
  return stepPage(state.step, facts);
}

function factsOf(state: WizardState): StepFacts | undefined {
  if (state.view === undefined) return undefined;
  return { ...state, view: state.view, values: state.form.values };
}

/** True while the installer's lines are to be shown instead of pages: nobody is answering here. */
export function showsLines(state: WizardState): boolean {
  if (state.view === undefined) return true;
  const { phase, attended, ready } = state.view;
  if (attended) return false;
  return !ready || phase.kind === "installing" || phase.kind === "done";
}

export function transition(state: WizardState, event: WizardEvent): Transition {
  if ("request" in event && event.request !== state.request) return stay(state);
  switch (event.kind) {
    case "view":
      return onView(state, event.view);
    case "key":
      return onKey(state, event.key);
    case "hashed": {
      // From here on only the hash is known.
      const values = { ...state.form.values, password: "", passwordAgain: "" };
      return enter(
        { ...state, passwordHash: event.hash, busy: undefined, form: { ...state.form, values } },
        "summary",
      );
    }
    case "probed":
      return stay({ ...state, probes: event.probes, busy: undefined });
    case "planned":
      return stay({ ...state, plan: event.plan, busy: undefined });
    case "media":
      return stay({ ...state, media: event.media, busy: undefined });
    case "saved":
      return stay({ ...state, busy: undefined, notice: `Saved: ${event.place}` });
    case "started":
      return stay({ ...state, busy: undefined, step: "progress" });
    case "failed":
      return stay({ ...state, busy: undefined, notice: event.message });
  }
}

function stay(state: WizardState): Transition {
  return { state, effects: [] };
}

function onView(state: WizardState, view: InstallerView): Transition {
  const { phase } = view;
  const before = state.view?.phase.kind;
  let next: WizardState = { ...state, view };
  if (!view.attended && state.step !== "welcome" && state.step !== "progress") {
    // The installer was started anew and has forgotten that somebody answers here.
    return { state: next, effects: [{ kind: "attend", attended: true }] };
  }
  if (phase.kind === "installing" || phase.kind === "done") {
    next = { ...next, step: view.attended ? "progress" : next.step, side: undefined };
  } else if (state.step === "progress") {
    const notice = phase.kind === "refused" ? `Not installed: ${phase.message}` : undefined;
    next = { ...next, step: "summary", notice, busy: undefined };
  }
  if (phase.kind === "done" && before !== "done") next = { ...next, busy: undefined };
  return stay(next);
}

function ask(state: WizardState, busy: string): WizardState {
  return { ...state, busy, request: state.request + 1, notice: undefined };
}

function onKey(given: WizardState, key: Key): Transition {
  const page = wizardPage(given);
  if (page === undefined || showsLines(given)) return stay(given);
  const escapes = key.kind === "key" && key.name === "escape";
  if (given.busy !== undefined && !escapes) return stay(given);
  const state = { ...given, notice: key.kind === "size" ? given.notice : undefined };
  const { state: form, action } = press(page, state.form, key);
  const typed = { ...state, form };
  return action === undefined ? stay(typed) : act(typed, page, action);
}

function act(state: WizardState, page: Page, action: string): Transition {
  if (state.side !== undefined) return actAside(state, action);
  switch (action) {
    case "back":
      return goBack(state);
    case "next":
      return goOn(state, page);
    case "again":
      return enter(state, "test");
    case "install":
      if (state.plan?.ok !== true) {
        return stay({ ...state, notice: "Go back and change what stands in the way." });
      }
      return request(state, "Starting ...", (next) => ({
        kind: "install",
        request: next.request,
        text: textOf(next),
      }));
    case "save":
      return request(
        { ...state, side: "save", media: undefined },
        "Looking for media ...",
        (next) => ({
          kind: "listMedia",
          request: next.request,
        }),
      );
    case "show":
      return stay({ ...state, side: "show", form: { ...state.form, offset: 0 } });
    case "restart":
    case "powerOff":
      return request(
        state,
        action === "restart" ? "Restarting ..." : "Powering off ...",
        (next) => ({
          kind: "power",
          request: next.request,
          action: action === "restart" ? "reboot" : "poweroff",
        }),
      );
    case "now": {
      const phase = state.view?.phase;
      return request(state, "Going down ...", (next) => ({
        kind: "power",
        request: next.request,
        action: phase?.kind === "done" ? phase.after : "reboot",
      }));
    }
    default:
      return stay(state);
  }
}

function actAside(state: WizardState, action: string): Transition {
  if (action === "back") {
    const form = { ...state.form, focus: buttonFocus(state.side!), offset: 0 };
    // What is still under way is answered to nobody.
    return stay({ ...state, form, side: undefined, busy: undefined, request: state.request + 1 });
  }
  const device = /^medium:(.*)$/.exec(action)?.[1];
  if (device === undefined) return stay(state);
  return request(state, `Saving to ${device} ...`, (next) => ({
    kind: "save",
    request: next.request,
    device,
    text: textOf(next),
  }));
}

function request(
  state: WizardState,
  busy: string,
  effect: (next: WizardState) => WizardEffect,
): Transition {
  const next = ask(state, busy);
  return { state: next, effects: [effect(next)] };
}

function textOf(state: WizardState): string {
  return answersText(state.form.values, state.view!, state.passwordHash);
}

function goBack(state: WizardState): Transition {
  if (state.step === "welcome" || state.step === "progress") return stay(state);
  if (state.busy !== undefined && state.step !== "test") {
    // Esc while waiting ends the waiting, not the page.
    return stay({ ...state, busy: undefined, request: state.request + 1 });
  }
  const before = steps[steps.indexOf(state.step) - 1];
  const next = before === "test" ? "backplane" : before;
  const left = { ...state, busy: undefined, request: state.request + 1 };
  const entered = enter(left, next);
  return next === "welcome"
    ? { ...entered, effects: [...entered.effects, { kind: "attend", attended: false }] }
    : entered;
}

function goOn(state: WizardState, page: Page): Transition {
  const wrong = Object.keys(page.problems ?? {});
  if (wrong.length > 0) {
    const touched = { ...state.form.touched };
    for (const id of wrong) touched[id] = true;
    const form = { ...state.form, touched };
    const first = page.fields.find((field) => field.kind !== "line" && wrong.includes(field.id));
    const focus =
      first === undefined || first.kind === "line"
        ? form.focus
        : first.kind === "option"
          ? `${first.id}=${first.value}`
          : first.id;
    return stay({ ...state, form: focused(page, form, focus) });
  }
  if (state.step === "password") {
    const facts = factsOf(state)!;
    const password = state.form.values.password ?? "";
    if (password !== "" && Object.keys(passwordProblems(facts)).length === 0) {
      return request(state, "Hashing the password ...", (next) => ({
        kind: "hash",
        request: next.request,
        password,
      }));
    }
  }
  const entered = enter(state, steps[steps.indexOf(state.step) + 1]);
  return state.step === "welcome"
    ? { ...entered, effects: [{ kind: "attend", attended: true }, ...entered.effects] }
    : entered;
}

/** Shows a step from its top; what it needs to know is asked for. */
function enter(state: WizardState, step: Step): Transition {
  const blank: WizardState = {
    ...state,
    step,
    side: undefined,
    notice: undefined,
    form: { ...state.form, focus: "", cursor: 0, offset: 0 },
  };
  const page = wizardPage(blank);
  const shown = page === undefined ? blank : { ...blank, form: settle(page, blank.form) };
  if (step === "test") {
    return request({ ...shown, probes: undefined }, "Testing ...", (next) => ({
      kind: "probe",
      request: next.request,
      text: textOf(next),
    }));
  }
  if (step === "summary") {
    // An Enter too many on the page before must not begin to write.
    const form = focused(page!, shown.form, buttonFocus("back"));
    return request({ ...shown, form, plan: undefined }, "Looking at the disks ...", (next) => ({
      kind: "plan",
      request: next.request,
      text: textOf(next),
    }));
  }
  return stay(shown);
}
