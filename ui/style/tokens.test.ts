import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

/** WCAG 2.2, 1.4.3 and 1.4.11: what is read has 4.5:1, what only has to be seen 3:1. */
const css = readFileSync(join(import.meta.dirname, "tokens.css"), "utf8");

function tokensOf(selector: string): Record<string, string> {
  const start = css.indexOf(`${selector} {`);
  const block = css.slice(start, css.indexOf("}", start));
  return Object.fromEntries(
    [...block.matchAll(/--([\w-]+):\s*(#[0-9a-f]{6});/g)].map((match) => [match[1], match[2]]),
  );
}

function luminance(color: string): number {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const channel = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(a: string, b: string): number {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

const read: [text: string, on: string][] = [
  ...["page", "surface", "surface-sunk", "surface-hover", "idle-wash", "accent-wash"].flatMap(
    (surface): [string, string][] => [
      ["text", surface],
      ["text-soft", surface],
    ],
  ),
  ["text", "bad-wash"],
  ["text-soft", "bad-wash"],
  ["accent", "surface"],
  ["accent", "page"],
  ["accent", "accent-wash"],
  ["accent-text", "accent"],
  ["accent-text", "accent-hover"],
  ["good", "surface"],
  ["good", "good-wash"],
  ["warn", "warn-wash"],
  ["bad", "surface"],
  ["bad", "surface-sunk"],
  ["bad", "bad-wash"],
  ["bad-text", "bad"],
  ["bad-text", "bad-hover"],
  ["rail-text", "rail"],
  ["rail-strong", "rail-active"],
  ["rail-text", "rail-hover"],
];
const seen: [line: string, on: string][] = [
  ["line-strong", "surface"],
  ["focus", "surface"],
  ["focus", "page"],
  ["rail-accent", "rail"],
];

const light = tokensOf(":root");
const themes = { light, dark: { ...light, ...tokensOf(':root[data-theme="dark"]') } };

describe.each(Object.entries(themes))("%s colours", (_name, tokens) => {
  test.each(read)("%s can be read on %s", (text, surface) => {
    expect(contrast(tokens[text], tokens[surface])).toBeGreaterThanOrEqual(4.5);
  });
  test.each(seen)("%s can be seen on %s", (line, surface) => {
    expect(contrast(tokens[line], tokens[surface])).toBeGreaterThanOrEqual(3);
  });
});
