/** Text of an answer file to checked answers. */
import { KeelsonError } from "#lib/model/errors.ts";
import { parseCommentedJson } from "./commented-json.ts";
import { type Answers, checkAnswers } from "./schema.ts";

/** Name of the file on the medium labelled `seedLabel`. */
export const answerFileName = "keelson-answers.json";
/** File system label of the second medium (iso9660, ext4). */
export const seedLabel = "KEELSON-SEED";
/** The same where a label has 11 characters at most (vfat). */
export const shortSeedLabel = "KEELSONSEED";

/**
 * Answers of `text`, which came from `name`. FORMAT_CORRUPT if it isn't JSON; INVALID_ARGUMENT with
 * one line a problem (`path: what is wrong; what is allowed`) if it says something wrong.
 */
export function parseAnswerFile(text: string, name: string): Answers {
  const result = checkAnswers(parseCommentedJson(text, name));
  if (result.ok) return result.answers;
  const lines = result.problems.map(({ path, message }) =>
    path === "" ? `  ${message}` : `  ${path}: ${message}`,
  );
  throw new KeelsonError("INVALID_ARGUMENT", `${name} can't be used:\n${lines.join("\n")}`, {
    operation: "check answers",
    object: name,
    remedy: "Nothing was changed on any disk.",
  });
}
