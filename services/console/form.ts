/**
 * A page of fields and buttons, and what keys do to it. Pure: `press(page, state, key)` gives the
 * next state and, if a button was pressed, which. What is typed stays in `values` whatever page is
 * shown, so moving back and forth loses nothing.
 */
import type { Key, KeyName } from "#lib/terminal/keys.ts";

export interface Option {
  readonly value: string;
  readonly label: string;
}

export type Field =
  | { readonly kind: "text" | "password"; readonly id: string; readonly label: string }
  /** All options on one row. */
  | {
      readonly kind: "choice";
      readonly id: string;
      readonly label: string;
      readonly options: readonly Option[];
    }
  /** One row of a list of which one is chosen: `id` is the list's. */
  | {
      readonly kind: "option";
      readonly id: string;
      readonly value: string;
      readonly label: string;
    }
  | { readonly kind: "check"; readonly id: string; readonly label: string }
  /** A row of a menu: Enter presses it like a button. */
  | { readonly kind: "item"; readonly id: string; readonly label: string }
  | { readonly kind: "line"; readonly text: string; readonly bold?: boolean };

export interface Page {
  /** At the right of the title bar. */
  readonly title: string;
  readonly fields: readonly Field[];
  /** The first is what Enter in the last field leads to. */
  readonly buttons: readonly Option[];
  /** By field id; shown when the field was left, or `showAll`. */
  readonly problems?: Readonly<Record<string, string>>;
  /** Above the buttons when the focused field has no problem. */
  readonly notice?: string;
}

export interface FormState {
  readonly focus: string;
  /** In the focused text, in UTF-16 units. */
  readonly cursor: number;
  /** First body row shown, of a page longer than the screen. */
  readonly offset: number;
  readonly values: Readonly<Record<string, string>>;
  /** Fields that somebody has typed in or left: their problems are told. */
  readonly touched: Readonly<Record<string, true>>;
}

export interface Pressed {
  readonly state: FormState;
  /** A button's or item's value; `back` for Esc. */
  readonly action?: string;
}

export const longestText = 512;

export function formState(values: Readonly<Record<string, string>> = {}): FormState {
  return { focus: "", cursor: 0, offset: 0, values, touched: {} };
}

/** What the focus of a field is called; undefined for plain lines. */
export function focusOf(field: Field): string | undefined {
  switch (field.kind) {
    case "line":
      return undefined;
    case "option":
      return `${field.id}=${field.value}`;
    default:
      return field.id;
  }
}

export const buttonFocus = (value: string) => `button:${value}`;

function places(page: Page): string[] {
  return [
    ...page.fields.flatMap((field) => focusOf(field) ?? []),
    ...page.buttons.map(({ value }) => buttonFocus(value)),
  ];
}

/** The state with its focus on something that the page has. */
export function settle(page: Page, state: FormState): FormState {
  const all = places(page);
  if (all.includes(state.focus)) {
    const cursor = Math.min(state.cursor, textAt(page, state).length);
    return cursor === state.cursor ? state : { ...state, cursor };
  }
  // A list at the top is entered at what is chosen in it.
  const first = page.fields.find((field) => field.kind !== "line");
  const chosen = page.fields.find(
    (field) =>
      field.kind === "option" &&
      first?.kind === "option" &&
      field.id === first.id &&
      state.values[field.id] === field.value,
  );
  return focused(page, state, (chosen && focusOf(chosen)) ?? all[0] ?? "");
}

export function focused(page: Page, state: FormState, focus: string): FormState {
  const next = { ...state, focus };
  return { ...next, cursor: textAt(page, next).length };
}

function fieldAt(page: Page, focus: string): Exclude<Field, { kind: "line" }> | undefined {
  const found = page.fields.find((field) => focusOf(field) === focus);
  return found?.kind === "line" ? undefined : found;
}

function textAt(page: Page, state: FormState): string {
  const field = fieldAt(page, state.focus);
  return field?.kind === "text" || field?.kind === "password" ? (state.values[field.id] ?? "") : "";
}

export function press(page: Page, given: FormState, key: Key): Pressed {
  const state = settle(page, given);
  if (key.kind === "size") return { state };
  if (key.kind === "key" && key.name === "escape") {
    return { state: leave(page, state), action: "back" };
  }
  const field = fieldAt(page, state.focus);
  switch (field?.kind) {
    case undefined:
      return pressButton(page, state, key);
    case "text":
    case "password":
      return { state: pressText(page, state, field.id, key) };
    case "choice":
      return { state: pressChoice(page, state, field, key) };
    case "option":
      if (isChoose(key)) {
        const chosen = setValue(state, field.id, field.value);
        return { state: isEnter(key) ? toButtons(page, chosen) : chosen };
      }
      return { state: pressMove(page, state, key) };
    case "check":
      if (isChoose(key)) {
        const checked = state.values[field.id] === "yes" ? "" : "yes";
        return { state: setValue(state, field.id, checked) };
      }
      return { state: pressMove(page, state, key) };
    case "item":
      if (isChoose(key)) return { state, action: field.id };
      return { state: pressMove(page, state, key) };
  }
}

function isEnter(key: Key): boolean {
  return key.kind === "key" && key.name === "enter";
}

function isChoose(key: Key): boolean {
  return isEnter(key) || (key.kind === "text" && key.text === " ");
}

function setValue(state: FormState, id: string, value: string): FormState {
  return {
    ...state,
    values: { ...state.values, [id]: value },
    touched: { ...state.touched, [id]: true },
  };
}

function leave(page: Page, state: FormState): FormState {
  const field = fieldAt(page, state.focus);
  if (field === undefined || state.touched[field.id]) return state;
  return { ...state, touched: { ...state.touched, [field.id]: true } };
}

function move(page: Page, state: FormState, by: number): FormState {
  const all = places(page);
  const at = all.indexOf(state.focus);
  const to = Math.max(0, Math.min(all.length - 1, at + by));
  return to === at ? state : focused(page, leave(page, state), all[to]);
}

/** Past the options of this list: to the next field, else the first button. */
function toButtons(page: Page, state: FormState): FormState {
  const at = page.fields.findIndex((field) => focusOf(field) === state.focus);
  const list = fieldAt(page, state.focus)?.id;
  const next = page.fields.slice(at).find((field) => field.kind !== "line" && field.id !== list);
  const focus = next === undefined ? buttonFocus(page.buttons[0]?.value ?? "") : focusOf(next)!;
  return focused(page, state, focus);
}

function pressMove(page: Page, state: FormState, key: Key): FormState {
  if (key.kind !== "key") return state;
  switch (key.name) {
    case "up":
    case "backTab":
    case "left":
      return move(page, state, -1);
    case "down":
    case "tab":
    case "right":
      return move(page, state, 1);
    case "home":
      return move(page, state, -1000);
    case "end":
      return move(page, state, 1000);
    case "pageUp":
    case "pageDown":
      return scroll(state, key.name);
    default:
      return state;
  }
}

/** The view bounds it to the page's length. */
function scroll(state: FormState, name: KeyName, rows = 15): FormState {
  const by = name === "pageUp" || name === "up" ? -rows : rows;
  return { ...state, offset: Math.max(0, state.offset + by) };
}

function pressButton(page: Page, state: FormState, key: Key): Pressed {
  if (isChoose(key)) {
    const value = state.focus.slice(buttonFocus("").length);
    return { state, action: value };
  }
  const hasFields = page.fields.some((field) => field.kind !== "line");
  if (key.kind === "key" && !hasFields && (key.name === "up" || key.name === "down")) {
    return { state: scroll(state, key.name, 1) };
  }
  if (key.kind === "key" && (key.name === "up" || key.name === "down")) {
    // The row of buttons is one place for up and down.
    const at = page.buttons.findIndex(({ value }) => buttonFocus(value) === state.focus);
    return { state: key.name === "up" ? move(page, state, -1 - at) : state };
  }
  return { state: pressMove(page, state, key) };
}

function pressChoice(
  page: Page,
  state: FormState,
  field: Extract<Field, { kind: "choice" }>,
  key: Key,
): FormState {
  const at = field.options.findIndex(({ value }) => value === state.values[field.id]);
  const step = (by: number) => {
    const count = field.options.length;
    return setValue(state, field.id, field.options[(at + by + count) % count].value);
  };
  if (key.kind === "text") return key.text === " " ? step(1) : state;
  if (key.kind === "key" && key.name === "left") return step(at < 0 ? 0 : -1);
  if (key.kind === "key" && key.name === "right") return step(1);
  if (isEnter(key)) return move(page, state, 1);
  return pressMove(page, state, key);
}

function pressText(page: Page, state: FormState, id: string, key: Key): FormState {
  const text = state.values[id] ?? "";
  const { cursor } = state;
  const edited = (next: string, at: number) => ({ ...setValue(state, id, next), cursor: at });
  if (key.kind === "text") {
    if (text.length >= longestText) return state;
    // One unit a character, so that the cursor is a column; what it stands for is refused anyway.
    const typed = key.text.length === 1 ? key.text : "\ufffd";
    return edited(text.slice(0, cursor) + typed + text.slice(cursor), cursor + 1);
  }
  if (key.kind !== "key") return state;
  switch (key.name) {
    case "left":
      return { ...state, cursor: Math.max(0, cursor - 1) };
    case "right":
      return { ...state, cursor: Math.min(text.length, cursor + 1) };
    case "home":
      return { ...state, cursor: 0 };
    case "end":
      return { ...state, cursor: text.length };
    case "backspace":
      if (cursor === 0) return state;
      return edited(text.slice(0, cursor - 1) + text.slice(cursor), cursor - 1);
    case "delete":
      return edited(text.slice(0, cursor) + text.slice(cursor + 1), cursor);
    case "eraseLine":
      return edited(text.slice(cursor), 0);
    case "eraseWord": {
      const kept = text.slice(0, cursor).replace(/\S*\s*$/, "");
      return edited(kept + text.slice(cursor), kept.length);
    }
    case "enter":
      return move(page, state, 1);
    default:
      return pressMove(page, state, key);
  }
}
