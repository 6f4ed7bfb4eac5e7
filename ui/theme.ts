/** Light or dark: what the person chose, else what the system prefers. */
import { computed, effect, signal } from "@preact/signals";

export type Theme = "light" | "dark";
const key = "keelson.theme";
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

const system = signal<Theme>(prefersDark.matches ? "dark" : "light");
prefersDark.addEventListener("change", () => {
  system.value = prefersDark.matches ? "dark" : "light";
});

function stored(): Theme | undefined {
  const value = localStorage.getItem(key);
  return value === "light" || value === "dark" ? value : undefined;
}

/** Undefined: as the system prefers. */
export const chosenTheme = signal<Theme | undefined>(stored());
export const theme = computed(() => chosenTheme.value ?? system.value);

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function chooseTheme(choice: Theme | undefined): void {
  if (choice === undefined) localStorage.removeItem(key);
  else localStorage.setItem(key, choice);
  chosenTheme.value = choice;
}

/** Going back to what the system prefers forgets the choice, so that it follows again. */
export function toggleTheme(): void {
  const next: Theme = theme.value === "dark" ? "light" : "dark";
  chooseTheme(next === system.value ? undefined : next);
}
