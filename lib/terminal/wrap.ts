/** Text in columns. */

/** Breaks at spaces so that no line is longer than `width`; continuation lines are indented. */
export function wrapLine(line: string, width: number): string[] {
  if (line.length <= width) return [line];
  const indent = /^ */.exec(line)![0];
  const out: string[] = [];
  let current = indent;
  for (const word of line.trim().split(/ +(?! )/)) {
    const joined = current.trim() === "" ? `${current}${word}` : `${current} ${word}`;
    if (joined.length <= width || current.trim() === "") {
      current = joined;
    } else {
      out.push(current);
      current = `${indent}  ${word}`;
    }
    while (current.length > width) {
      out.push(current.slice(0, width));
      current = `${indent}  ${current.slice(width)}`;
    }
  }
  return [...out, current];
}
