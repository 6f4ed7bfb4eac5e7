/**
 * Addresses after `#`: the console is one static file, so that a reload needs no route of the
 * server, and a link to a page can be shared.
 */
import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

const address = signal(location.hash);
addEventListener("hashchange", () => {
  address.value = location.hash;
});

/** `#/volumes?new` -> path `/volumes`, query `new`. */
export const route = computed(() => {
  const [path, query = ""] = address.value.replace(/^#/, "").split("?");
  return { path: path === "" ? "/" : path, query: new URLSearchParams(query) };
});

export function go(path: string): void {
  location.hash = path;
}

/**
 * Does what the address asks for once (`?new`), then takes it out of the address, so that neither a
 * reload nor going back asks again.
 */
export function useAddressAction(name: string, act: () => void): void {
  const { path, query } = route.value;
  const asked = query.has(name);
  useEffect(() => {
    if (!asked) return;
    location.replace(`#${path}`);
    act();
  }, [asked]);
}
