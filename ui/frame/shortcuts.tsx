/**
 * Keys that work everywhere, and the sheet that lists them. Shortcuts of a single character can be
 * turned off (WCAG 2.2, 2.1.4), and never fire while something is typed.
 */
import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { isAllowed, pages } from "../pages.ts";
import { go } from "../router.ts";
import { t } from "../words/words.ts";
import { closeSheet, commandKey, openPalette, openShortcuts, sheet } from "./sheet.ts";

const key = "keelson.single-keys";
const singleKeys = signal(localStorage.getItem(key) !== "off");
/** How long `g` waits for its second key. */
const sequenceMs = 1500;

function setSingleKeys(on: boolean): void {
  singleKeys.value = on;
  if (on) localStorage.removeItem(key);
  else localStorage.setItem(key, "off");
}

export function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement)
    return !/^(radio|checkbox|button|file)$/.test(target.type);
  return /^(SELECT|TEXTAREA)$/.test(target.tagName) || target.isContentEditable;
}

/** For a key of one page (the filter's `/`): undefined while it must not fire. */
export function singleKeyOf(event: KeyboardEvent): string | undefined {
  const held = event.ctrlKey || event.metaKey || event.altKey;
  if (!singleKeys.value || held || isTyping(event.target)) return undefined;
  return document.querySelector("dialog[open]") === null ? event.key : undefined;
}

/** Returns how to stop. */
export function listenForShortcuts(): () => void {
  let pressedGoAtMs = 0;
  const onKeyDown = (event: KeyboardEvent) => {
    const command = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
    if (command && event.key.toLowerCase() === "k") {
      event.preventDefault();
      if (document.querySelector("dialog[open]") === null) openPalette();
      return;
    }
    const single = singleKeyOf(event);
    if (single === "?") {
      event.preventDefault();
      openShortcuts();
    } else if (single !== undefined && Date.now() - pressedGoAtMs < sequenceMs) {
      pressedGoAtMs = 0;
      const page = pages.find((candidate) => candidate.key === single && isAllowed(candidate));
      if (page === undefined) return;
      event.preventDefault();
      go(page.path);
    } else if (single === "g") pressedGoAtMs = Date.now();
  };
  addEventListener("keydown", onKeyDown);
  return () => removeEventListener("keydown", onKeyDown);
}

export function Shortcuts() {
  return sheet.value === "shortcuts" ? <Sheet /> : null;
}

function Sheet() {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const element = dialog.current!;
    const before = document.activeElement;
    element.showModal();
    element.querySelector("h2")?.focus();
    return () => {
      element.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      class="shortcuts"
      aria-labelledby="shortcuts-title"
      onCancel={(event) => {
        event.preventDefault();
        closeSheet();
      }}
    >
      <h2 id="shortcuts-title" tabIndex={-1}>
        {t("shortcuts.title")}
      </h2>
      <div class="shortcut-columns">
        <section>
          <h3>{t("shortcuts.everywhere")}</h3>
          <Keys
            lines={[
              [[commandKey, "K"], t("shortcuts.palette")],
              [["?"], t("shortcuts.this")],
              [["Esc"], t("shortcuts.close")],
            ]}
          />
          <h3>{t("shortcuts.lists")}</h3>
          <Keys
            lines={[
              [["/"], t("shortcuts.filter")],
              [["↑", "↓"], t("shortcuts.rows")],
              [["Page ↑", "Page ↓"], t("shortcuts.pageOfRows")],
              [["Home", "End"], t("shortcuts.ends")],
              [["Enter"], t("shortcuts.open")],
            ]}
          />
        </section>
        <section>
          <h3>{t("shortcuts.goTo")}</h3>
          <Keys lines={pages.filter(isAllowed).map((page) => [["g", page.key], t(page.title)])} />
        </section>
      </div>
      <label class="check">
        <input
          type="checkbox"
          checked={singleKeys.value}
          onChange={(event) => setSingleKeys(event.currentTarget.checked)}
        />
        <span>
          {t("shortcuts.single")}
          <span class="under wrap">{t("shortcuts.singleHint")}</span>
        </span>
      </label>
      <div class="actions">
        <button type="button" class="button" onClick={closeSheet}>
          {t("shortcuts.done")}
        </button>
      </div>
    </dialog>
  );
}

function Keys({ lines }: { lines: readonly (readonly [keys: readonly string[], what: string])[] }) {
  return (
    <dl class="keys">
      {lines.map(([keys, what]) => (
        <div key={what}>
          <dt>
            {keys.map((name) => (
              <kbd key={name}>{name}</kbd>
            ))}
          </dt>
          <dd>{what}</dd>
        </div>
      ))}
    </dl>
  );
}
