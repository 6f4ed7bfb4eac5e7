import fc from "fast-check";
import { expect, test } from "vitest";
import { encodeSyslog, facilityAudit, frameSyslog, severityInformational } from "./syslog.ts";

const message = {
  facility: facilityAudit,
  severity: severityInformational,
  time: "2026-11-21T08:00:00.000Z",
  host: "node-1",
  app: "keelson",
  kind: "audit-head",
  text: '{"sequence":1}',
};

test("a message is what RFC 5424 section 6 says, to the byte", () => {
  expect(encodeSyslog(message)).toBe(
    '<110>1 2026-11-21T08:00:00.000Z node-1 keelson - audit-head - {"sequence":1}',
  );
});

test("frames are counted in octets and follow each other without anything between", () => {
  const frames = frameSyslog([encodeSyslog({ ...message, text: "a" }), "b\u00e4"]).toString();
  expect(frames).toBe(
    "63 <110>1 2026-11-21T08:00:00.000Z node-1 keelson - audit-head - a3 b\u00e4",
  );
});

test.each([
  [{ facility: 24 }, "no such priority"],
  [{ facility: -1 }, "no such priority"],
  [{ severity: 8 }, "no such priority"],
  [{ severity: 1.5 }, "no such priority"],
  [{ time: "yesterday" }, "no time of RFC 3339"],
  [{ time: "2026-11-21T08:00:00.1234567Z" }, "no time of RFC 3339"],
  [{ text: "two\nlines" }, "not printable ASCII"],
  [{ text: "gr\u00fcn" }, "not printable ASCII"],
])("%j is refused", (change, why) => {
  expect(() => encodeSyslog({ ...message, ...change })).toThrow(why);
});

test("whatever a node is called, the header keeps its six words", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 400 }), (host) => {
      const words = encodeSyslog({ ...message, host, text: "" }).split(" ");
      expect(words).toHaveLength(8);
      expect(words[2]).toMatch(/^[\x21-\x7e]{1,255}$/);
    }),
  );
});
