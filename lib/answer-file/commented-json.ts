/**
 * JSON with `//` and block comments and trailing commas, for files that people write. Comments
 * are replaced by spaces, so that line and column of a syntax error are those of the file.
 */
import { KeelsonError } from "#lib/model/errors.ts";

/** Value of `text`; FORMAT_CORRUPT with line and column if it isn't JSON. `name` is for the message. */
export function parseCommentedJson(text: string, name: string): unknown {
  const bare = withoutComments(text.replace(/^\uFEFF/, " "));
  try {
    return JSON.parse(bare);
  } catch (cause) {
    const position = positionOf((cause as Error).message, bare);
    throw new KeelsonError(
      "FORMAT_CORRUPT",
      `${name} is not valid JSON: ${position === undefined ? (cause as Error).message : `line ${position.line}, column ${position.column}: ${position.what}`}.`,
      { operation: "read", object: name, remedy: "Mend that line; comments are allowed.", cause },
    );
  }
}

/** Same length as `text`: comments and trailing commas become spaces, line breaks stay. */
export function withoutComments(text: string): string {
  const out = [...text.matchAll(/"(?:\\.|[^"\\\n])*"|\/\/[^\n]*|\/\*[\s\S]*?\*\/|[\s\S]/g)].map(
    ([token]) => (/^\/[/*]/.test(token) ? token.replaceAll(/[^\n]/g, " ") : token),
  );
  // A trailing comma is one that only white space parts from the closing bracket.
  for (let index = 0; index < out.length; index++) {
    if (out[index] !== ",") continue;
    let next = index + 1;
    while (next < out.length && out[next].trim() === "") next++;
    if (out[next] === "}" || out[next] === "]") out[index] = " ";
  }
  return out.join("");
}

/** V8 says `... at position 17 (line 2 column 3)`, or nothing of the sort when the text just ends. */
function positionOf(message: string, text: string) {
  const match = /^(.*?)(?: in JSON)? at position (\d+)/.exec(message);
  const offset = match === null ? text.trimEnd().length : Number(match[2]);
  if (match === null && !/end of JSON/.test(message)) return undefined;
  const before = text.slice(0, offset).split("\n");
  return {
    line: before.length,
    column: before[before.length - 1].length + 1,
    what: match === null ? "the file ends too early" : match[1],
  };
}
