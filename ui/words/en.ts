/** The catalogue in English, by part of the console. Keys are `part.what`. */
import { frameWords } from "./en-frame.ts";
import { peopleWords } from "./en-people.ts";

export const en = { ...frameWords, ...peopleWords } as const;
