/** Which secrets policy has, and that none stands in plain text in any file of the node. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Secret, TOTP } from "otpauth";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { EmbeddedStore } from "#lib/cluster-store/embedded.ts";
import { password, TestNode } from "./platform.fixture.ts";
import { recordSchemas } from "./policy.ts";
import { secretFields } from "./record-seal.ts";

/** Every text field of a schema, by path. */
function fieldsOf(schema: z.ZodType, path: readonly string[] = []): string[] {
  if (schema instanceof z.ZodPipe) return fieldsOf(schema.in as z.ZodType, path);
  if (
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodDefault
  ) {
    return fieldsOf(schema.unwrap() as z.ZodType, path);
  }
  if (schema instanceof z.ZodArray) return fieldsOf(schema.element as z.ZodType, path);
  if (!(schema instanceof z.ZodObject)) return [path.join(".")];
  return Object.entries(schema.shape as Record<string, z.ZodType>).flatMap(([name, inner]) =>
    fieldsOf(inner, [...path, name]),
  );
}

test("each field that is called like a secret is sealed, or is known to be none", () => {
  const suspicious = /secret|token|password|passphrase|private|credential|psk/i;
  // Hashes are made to be read; the others are times and flags.
  const harmless = new Set([
    ...["user.passwordHash", "user.mustChangePassword", "user.passwordChangedAt"],
  ]);
  const found = Object.entries(recordSchemas)
    .flatMap(([kind, schema]) => fieldsOf(schema).map((path) => `${kind}.${path}`))
    .filter((name) => suspicious.test(name.replace(/^token\./, "")) && !harmless.has(name));
  const sealed = Object.entries(secretFields).flatMap(([kind, paths]) =>
    paths.map((path) => `${kind}.${path}`),
  );
  expect(found.sort()).toEqual(sealed.sort());
});

describe("at rest", () => {
  const node = new TestNode();
  beforeAll(() => node.start());
  afterAll(() => node.remove());

  test("no secret that is set stands in a file or in the log, and all work after a restart", async () => {
    const clientSecret = "client-secret-of-the-provider";
    const token = "token-of-the-collector";
    const provider = {
      ...{ name: "Office", issuer: "https://login.invalid", clientId: "keelson", clientSecret },
    };
    expect((await node.call("PUT", "/identity-provider", provider)).status).toBe(200);
    const target = { url: "https://collector.invalid/heads", token };
    expect((await node.call("PUT", "/settings/audit-target", target)).status).toBe(200);
    const enrolment = (await node.call("POST", "/session/totp", { password })).body;
    const totp = new TOTP({ secret: Secret.fromBase32(enrolment.secret) });
    const confirmed = await node.call("POST", "/session/totp/confirm", { code: totp.generate() });
    expect(confirmed.status).toBe(200);
    const secrets = [clientSecret, token, enrolment.secret, ...confirmed.body.codes];
    for (const secret of secrets) expect(node.holding(secret)).toEqual([]);

    const store = new EmbeddedStore(join(node.state, "cluster.sqlite"));
    for (const [key, field] of [
      ["identity-provider/provider", "clientSecret"],
      ["audit-target/target", "token"],
    ]) {
      const { value } = (await store.get(`policy/record/${key}`))!;
      expect(JSON.parse(value)[field]).toMatch(/^sealed:1:[0-9a-f]{16}:/);
    }
    await store.close();

    expect((await node.call("POST", "/session/totp/disable", { password })).status).toBe(204);
    await node.restart();
    expect((await node.call("GET", "/identity-provider")).body.clientSecretSet).toBe(true);
    expect((await node.call("GET", "/settings/audit-target")).body.settings.tokenSet).toBe(true);
    const conditions = (await node.call("GET", "/conditions")).body as { code: string }[];
    expect(conditions.some(({ code }) => code === "SECRETS_LOCKED")).toBe(false);
  });

  test("the key of the device cookies is sealed, also one that an older release left plain", async () => {
    const file = join(node.state, "api", "device.key");
    expect(readFileSync(file, "utf8")).toMatch(/^sealed:1:/);
    await node.stop();
    const plain = Buffer.alloc(32, 7).toString("base64url");
    writeFileSync(file, `${plain}\n`);
    await node.start();
    expect(existsSync(file)).toBe(true);
    expect(node.holding(plain)).toEqual([]);
    expect(readFileSync(file, "utf8")).toMatch(/^sealed:1:/);
  });
});
