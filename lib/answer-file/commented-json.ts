/**
 * JSON with `//` and block comments and trailing commas, for files that people write. Comments are
 * replaced by spaces, so that line and column of a syntax error are those of the file.
 */
import { KeelsonError } from "#lib/model/errors.ts";

/** Value of `text`; FORMAT_CORRUPT with line and column if it isn't JSON. `name` is for the message. */
export function parseCommentedJson(text: string, name: string): unknown {
  const bare = withoutComments(text.replace(/^\uFEFF/, " "));
  try {
    return JSON.parse(bare);
  } catch (cause) {
    const { offset, expected } = syntaxError(bare);
    const before = bare.slice(0, offset).split("\n");
    const found = offset >= bare.trimEnd().length ? "the file ends" : `'${bare[offset]}' stands`;
    throw new KeelsonError(
      "FORMAT_CORRUPT",
      `${name} is not valid JSON: line ${before.length}, column ${before[before.length - 1].length + 1}: ${found} where ${expected} is expected.`,
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

/** V8 names no position for short texts, so the place is found here (RFC 8259, section 2). */
function syntaxError(text: string): { offset: number; expected: string } {
  let at = 0;
  const fail = (expected: string): never => {
    throw { offset: at, expected };
  };
  const skip = () => {
    while (/\s/.test(text[at] ?? "")) at++;
  };
  const accept = (pattern: RegExp): boolean => {
    skip();
    const sticky = new RegExp(pattern, "y");
    sticky.lastIndex = at;
    if (!sticky.test(text)) return false;
    at = sticky.lastIndex;
    return true;
  };
  const string = /"(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|[^"\\\p{Cc}])*"/u;
  const scalar = /(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.+-])/;
  const value = (): void => {
    if (accept(/\{/)) members(/\}/, "'}' or ','", member);
    else if (accept(/\[/)) members(/\]/, "']' or ','", value);
    else if (!accept(string) && !accept(scalar)) fail("a value");
  };
  const member = () => {
    if (!accept(string)) fail("a name in double quotes");
    if (!accept(/:/)) fail("':'");
    value();
  };
  const members = (end: RegExp, expected: string, one: () => void) => {
    if (accept(end)) return;
    do one();
    while (accept(/,/));
    if (!accept(end)) fail(expected);
  };
  try {
    value();
    skip();
    return { offset: at, expected: "the end" };
  } catch (error) {
    return error as { offset: number; expected: string };
  }
}
