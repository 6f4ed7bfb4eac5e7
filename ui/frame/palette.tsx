/**
 * Ctrl or Cmd K: pages, objects by name, and actions. A combobox with a list (WAI-ARIA 1.2): the
 * focus stays in the input, arrows move what is chosen.
 */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Icon } from "../components/icon.tsx";
import { t } from "../words/words.ts";
import { type Entry, paletteEntries } from "./entries.ts";
import { searchEntries } from "./search.ts";
import { closeSheet, sheet } from "./sheet.ts";

const most = 50;

export function Palette() {
  return sheet.value === "palette" ? <OpenPalette /> : null;
}

function OpenPalette() {
  const dialog = useRef<HTMLDialogElement>(null);
  const [query, setQuery] = useState("");
  const [chosen, setChosen] = useState(0);
  // As it was when it opened: what is chosen doesn't slip away under the finger.
  const entries = useMemo(paletteEntries, []);
  const found = useMemo(() => searchEntries(query, entries, most), [query, entries]);
  useLayoutEffect(() => {
    const element = dialog.current!;
    const before = document.activeElement;
    element.showModal();
    element.querySelector("input")?.focus();
    // A click beside it counts as one on the dialog itself.
    element.addEventListener("click", (event) => {
      if (event.target === element) closeSheet();
    });
    return () => {
      element.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  useEffect(() => {
    document.getElementById(`palette-${chosen}`)?.scrollIntoView({ block: "nearest" });
  }, [chosen, found]);
  const run = (entry: Entry | undefined) => {
    if (entry === undefined) return;
    closeSheet();
    // After the focus went back: the page or dialog that opens takes it from there.
    setTimeout(entry.run);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: 8,
      PageUp: -8,
    };
    if (event.key === "Enter") {
      event.preventDefault();
      run(found[chosen]);
    } else if (event.key in steps && found.length > 0) {
      event.preventDefault();
      const step = steps[event.key];
      const next =
        Math.abs(step) === 1 ? (chosen + step + found.length) % found.length : chosen + step;
      setChosen(Math.max(0, Math.min(found.length - 1, next)));
    }
  };
  return (
    <dialog
      ref={dialog}
      class="palette"
      aria-label={t("palette.title")}
      onCancel={(event) => {
        event.preventDefault();
        closeSheet();
      }}
    >
      <div class="palette-input">
        <Icon name="search" />
        <input
          type="text"
          role="combobox"
          autocomplete="off"
          spellcheck={false}
          aria-label={t("palette.title")}
          aria-expanded="true"
          aria-controls="palette-list"
          aria-autocomplete="list"
          {...(found.length === 0 ? {} : { "aria-activedescendant": `palette-${chosen}` })}
          placeholder={t("palette.placeholder")}
          value={query}
          onInput={(event) => {
            setQuery(event.currentTarget.value);
            setChosen(0);
          }}
          onKeyDown={onKeyDown}
        />
      </div>
      <div id="palette-list" class="palette-list" role="listbox" aria-label={t("palette.title")}>
        {found.map((entry, index) => (
          // biome-ignore lint/a11y/useKeyWithClickEvents: keys go to the combobox that owns the list.
          // biome-ignore lint/a11y/useFocusableInteractive: an option of a combobox isn't focused itself.
          <div
            key={`${entry.kind} ${entry.id}`}
            id={`palette-${index}`}
            role="option"
            aria-selected={index === chosen}
            onClick={() => run(entry)}
            onMouseMove={() => setChosen(index)}
          >
            <span class="clip">{entry.title}</span>
            <span class="kind">{t(`palette.kind.${entry.kind}`)}</span>
          </div>
        ))}
      </div>
      <p class="palette-foot" role="status">
        {found.length === 0
          ? t("palette.none", { query })
          : query.trim() === ""
            ? t("palette.hint")
            : t("palette.results", { count: found.length })}
      </p>
    </dialog>
  );
}
