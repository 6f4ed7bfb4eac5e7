/**
 * Bytes of a terminal to keys: VT100, xterm, Linux console and what common serial programs send.
 * Any bytes are taken: what is no key is dropped, and at most 32 bytes are ever held back.
 *
 *     ground -- ESC --> escape -- [ --> control sequence -- final byte --> key
 *        |                |   \-- O --> one letter -------------------> key
 *        |                \-- nothing for a while (`idle`) -----------> Esc
 *        \-- 0x80.. --> UTF-8 tail
 */
export type KeyName =
  | "up"
  | "down"
  | "left"
  | "right"
  | "home"
  | "end"
  | "pageUp"
  | "pageDown"
  | "tab"
  | "backTab"
  | "enter"
  | "escape"
  | "backspace"
  | "delete"
  | "eraseLine"
  | "eraseWord"
  | "redraw";

export type Key =
  | { readonly kind: "key"; readonly name: KeyName }
  | { readonly kind: "text"; readonly text: string }
  /** The terminal's answer to `askSize`. */
  | { readonly kind: "size"; readonly rows: number; readonly columns: number };

const ESC = 0x1b;
const longest = 32;

const controls: Readonly<Record<number, KeyName>> = {
  1: "home",
  2: "left",
  // Ctrl-C leaves, as Esc does.
  3: "escape",
  4: "delete",
  5: "end",
  6: "right",
  8: "backspace",
  9: "tab",
  10: "enter",
  12: "redraw",
  13: "enter",
  14: "down",
  16: "up",
  21: "eraseLine",
  23: "eraseWord",
  127: "backspace",
};

const finals: Readonly<Record<string, KeyName>> = {
  A: "up",
  B: "down",
  C: "right",
  D: "left",
  F: "end",
  H: "home",
  M: "enter",
  Z: "backTab",
};

const numbered: Readonly<Record<string, KeyName>> = {
  1: "home",
  3: "delete",
  4: "end",
  5: "pageUp",
  6: "pageDown",
  7: "home",
  8: "end",
};

type State =
  | { readonly at: "ground" }
  | { readonly at: "escape" }
  | { readonly at: "oneLetter" }
  | { readonly at: "sequence"; readonly bytes: number[] }
  | { readonly at: "utf8"; readonly bytes: number[]; readonly length: number };

export class KeyParser {
  #state: State = { at: "ground" };
  /** A line end may come as CR LF or CR NUL (telnet): that is one Enter. */
  #afterReturn = false;

  /** True while bytes are held back that `idle` would decide about. */
  get pending(): boolean {
    return this.#state.at !== "ground";
  }

  push(bytes: Uint8Array): Key[] {
    return [...bytes].flatMap((byte) => this.#take(byte));
  }

  /** Nothing came for a while: an ESC alone was the key Esc, anything else is forgotten. */
  idle(): Key[] {
    const alone = this.#state.at === "escape";
    this.#state = { at: "ground" };
    return alone ? [named("escape")] : [];
  }

  #take(byte: number): Key[] {
    const state = this.#state;
    switch (state.at) {
      case "ground":
        return this.#ground(byte);
      case "escape":
        return this.#escape(byte);
      case "oneLetter":
        this.#state = { at: "ground" };
        if (byte === ESC) return this.#ground(byte);
        return maybe(finals[String.fromCharCode(byte)]);
      case "sequence":
        return this.#sequence(state.bytes, byte);
      case "utf8":
        return this.#utf8(state.bytes, state.length, byte);
    }
  }

  #ground(byte: number): Key[] {
    const afterReturn = this.#afterReturn;
    this.#afterReturn = byte === 13;
    if (afterReturn && (byte === 10 || byte === 0)) return [];
    if (byte === ESC) {
      this.#state = { at: "escape" };
      return [];
    }
    // The control sequence introducer as one byte of an 8-bit terminal.
    if (byte === 0x9b) {
      this.#state = { at: "sequence", bytes: [] };
      return [];
    }
    if (byte >= 0x20 && byte < 0x7f) {
      return [{ kind: "text", text: String.fromCharCode(byte) }];
    }
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 0;
    if (length > 0 && byte < 0xf5) {
      this.#state = { at: "utf8", bytes: [byte], length };
      return [];
    }
    return maybe(controls[byte]);
  }

  #escape(byte: number): Key[] {
    this.#state = { at: "ground" };
    switch (byte) {
      case 0x5b:
        this.#state = { at: "sequence", bytes: [] };
        return [];
      case 0x4f:
        this.#state = { at: "oneLetter" };
        return [];
      case ESC:
        this.#state = { at: "escape" };
        return [named("escape")];
      // The Linux console's Shift-Tab in many key maps.
      case 9:
        return [named("backTab")];
      default:
        // Esc and, quickly after it, Enter or another control key.
        if (byte < 0x20) return [named("escape"), ...this.#ground(byte)];
        // Alt with a key: nothing here has a use for it.
        return [];
    }
  }

  #sequence(bytes: readonly number[], byte: number): Key[] {
    this.#state = { at: "ground" };
    if (byte === ESC) return this.#ground(byte);
    // CAN and SUB end a sequence (ECMA-48); so does what cannot be part of one.
    if (byte < 0x20 || byte > 0x7e) return [];
    const linuxFunctionKey = byte === 0x5b && bytes.length === 0;
    const final = byte >= 0x40 && !linuxFunctionKey;
    if (!final) {
      if (bytes.length < longest) this.#state = { at: "sequence", bytes: [...bytes, byte] };
      return [];
    }
    const parameters = String.fromCharCode(...bytes);
    if (parameters.startsWith("[")) return [];
    const letter = String.fromCharCode(byte);
    if (letter === "R") {
      const size = /^(\d{1,4});(\d{1,4})$/.exec(parameters);
      if (size === null) return [];
      return [{ kind: "size", rows: Number(size[1]), columns: Number(size[2]) }];
    }
    if (letter === "~") return maybe(numbered[parameters.split(";")[0]]);
    return maybe(finals[letter]);
  }

  #utf8(bytes: readonly number[], length: number, byte: number): Key[] {
    this.#state = { at: "ground" };
    if ((byte & 0xc0) !== 0x80) return this.#ground(byte);
    const all = [...bytes, byte];
    if (all.length < length) {
      this.#state = { at: "utf8", bytes: all, length };
      return [];
    }
    const text = Buffer.from(all).toString("utf8");
    return text.includes("\ufffd") ? [] : [{ kind: "text", text }];
  }
}

function named(name: KeyName): Key {
  return { kind: "key", name };
}

function maybe(name: KeyName | undefined): Key[] {
  return name === undefined ? [] : [named(name)];
}
