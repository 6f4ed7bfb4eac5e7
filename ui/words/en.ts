/** The catalogue in English, by part of the console. Keys are `part.what`. */
import { frameWords } from "./en-frame.ts";
import { identityWords } from "./en-identity.ts";
import { networkWords } from "./en-network.ts";
import { nodeWords } from "./en-node.ts";
import { peopleWords } from "./en-people.ts";
import { storageWords } from "./en-storage.ts";
import { userWords } from "./en-users.ts";

export const en = {
  ...frameWords,
  ...peopleWords,
  ...userWords,
  ...nodeWords,
  ...networkWords,
  ...identityWords,
  ...storageWords,
} as const;
