/** Which of the frame's own sheets is open; and the key they open with. */
import { signal } from "@preact/signals";

export const sheet = signal<"palette" | "shortcuts" | undefined>(undefined);

export function openPalette(): void {
  sheet.value = "palette";
}

export function openShortcuts(): void {
  sheet.value = "shortcuts";
}

export function closeSheet(): void {
  sheet.value = undefined;
}

/** The key that goes with K. */
export const commandKey = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";
