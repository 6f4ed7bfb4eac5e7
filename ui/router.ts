/**
 * Addresses after `#`: the console is one static file, so that a reload needs no route of the
 * server, and a link to a page can be shared.
 */
import { computed, signal } from "@preact/signals";

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
