/** What the palette finds: plain words at the beginning of words, then anywhere. */

export interface Searchable {
  readonly kind: string;
  readonly title: string;
  /** Looked through too, after the title. */
  readonly detail: string;
}

function fold(text: string): string {
  return text.normalize("NFD").replaceAll(/\p{M}/gu, "").toLowerCase();
}

/**
 * 0 equal, 1 begins so, 2 a word begins so, 3 contains it; of several words the worst counts.
 * Undefined when a word isn't found.
 */
export function rank(query: string, title: string): number | undefined {
  const text = fold(title);
  const whole = fold(query).trim();
  if (text === whole) return 0;
  let worst = 0;
  for (const word of whole.split(/\s+/)) {
    const at = text.indexOf(word);
    if (at === -1) return undefined;
    worst = Math.max(worst, at === 0 ? 1 : beginsWord(text, word) ? 2 : 3);
  }
  return worst;
}

function beginsWord(text: string, word: string): boolean {
  for (let at = text.indexOf(word); at !== -1; at = text.indexOf(word, at + 1)) {
    if (at === 0 || !/[\p{L}\p{N}]/u.test(text[at - 1])) return true;
  }
  return false;
}

const shownUnasked = new Set(["page", "action"]);

/** Best first, at most `most`; entries of one rank keep their order. */
export function searchEntries<Entry extends Searchable>(
  query: string,
  entries: readonly Entry[],
  most: number,
): Entry[] {
  if (query.trim() === "") return entries.filter(({ kind }) => shownUnasked.has(kind));
  const found: { entry: Entry; score: number }[] = [];
  for (const entry of entries) {
    const byTitle = rank(query, entry.title);
    const score = byTitle ?? detailRank(query, entry);
    if (score !== undefined) found.push({ entry, score });
  }
  found.sort((a, b) => a.score - b.score || a.entry.title.length - b.entry.title.length);
  return found.slice(0, most).map(({ entry }) => entry);
}

function detailRank(query: string, { title, detail }: Searchable): number | undefined {
  if (detail === "") return undefined;
  return rank(query, `${title} ${detail}`) === undefined ? undefined : 4;
}
