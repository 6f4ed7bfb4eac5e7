/** Other people's ways in beside a password: security keys, and accounts at the identity provider. */
import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import type { Identity, SecurityKey } from "#services/api/identity-schema.ts";
import { action, type CommandContext, clock } from "../context.ts";

const pathOf = (user: string) => `/users/${encodeURIComponent(user)}`;

export function addUserAccessCommands(user: Command): void {
  user
    .command("keys")
    .description("list a user's security keys")
    .argument("<user>", "name")
    .action(
      action(async (context, id: string) =>
        context.table(
          await context.api.get<SecurityKey[]>(`${pathOf(id)}/security-keys`),
          [
            { title: "NAME", value: ({ name }) => name, whole: true },
            { title: "FOR", value: ({ rpId }) => rpId },
            { title: "LAST USED", value: ({ lastUsedAt }) => lastUsedAt && clock(lastUsedAt) },
            {
              title: "STATE",
              value: ({ suspectedAt, usableHere }) =>
                suspectedAt !== null
                  ? "refused: may be copied"
                  : usableHere
                    ? "good"
                    : "for another address",
            },
            { title: "ID", value: (key) => key.id },
          ],
          "No security keys.",
        ),
      ),
    );
  user
    .command("remove-key")
    .description("remove a user's security key, or all of them")
    .argument("<user>", "name")
    .argument("[key]", "its name, or its id's beginning")
    .option("--all", "all of them: the password alone is enough then")
    .action(
      action(async (context, id: string, text: string | undefined, { all }: { all?: boolean }) => {
        if ((text === undefined) !== (all === true)) {
          throw new KeelsonError("INVALID_ARGUMENT", "Give a key, or --all.", {
            remedy: `keelson user keys ${id} lists them.`,
          });
        }
        const keys = `${pathOf(id)}/security-keys`;
        if (text === undefined) {
          await context.api.call("DELETE", keys);
          return context.print({ user: id }, `${id} has no security key any more.`);
        }
        const key = await one<SecurityKey>(context, keys, "security key", text);
        await context.api.call("DELETE", `${keys}/${encodeURIComponent(key.id)}`);
        context.print({ user: id, key: key.id }, `${key.name} no longer logs ${id} in.`);
      }),
    );
  user
    .command("identities")
    .description("list by whom the identity provider knows a user")
    .argument("<user>", "name")
    .action(
      action(async (context, id: string) =>
        context.table(
          await context.api.get<Identity[]>(`${pathOf(id)}/identities`),
          [
            { title: "ISSUER", value: ({ issuer }) => issuer },
            { title: "SUBJECT", value: ({ subject }) => subject, whole: true },
            { title: "MADE BY", value: ({ created }) => (created ? "its first log-in" : "a link") },
            { title: "LAST LOG-IN", value: ({ lastLogInAt }) => lastLogInAt && clock(lastLogInAt) },
          ],
          "No identities.",
        ),
      ),
    );
  user
    .command("unlink")
    .description("an account at the identity provider no longer logs the user in")
    .argument("<user>", "name")
    .argument("<subject>", "as `keelson user identities` shows it")
    .action(
      action(async (context, id: string, subject: string) => {
        const identities = `${pathOf(id)}/identities`;
        const found = await one<Identity>(context, identities, "identity", subject);
        await context.api.call("DELETE", `${identities}/${found.id}`);
        context.print(
          { user: id, identity: found.id },
          `${found.subject} no longer logs ${id} in; sessions that it opened have ended.`,
        );
      }),
    );
}

/** By its name or subject, by its id, or by the id's beginning. */
async function one<Row extends { readonly id: string; name?: string; subject?: string }>(
  context: CommandContext,
  path: string,
  kind: string,
  text: string,
): Promise<Row> {
  const rows = await context.api.get<Row[]>(path);
  const named = rows.filter(({ id, name, subject }) => [id, name, subject].includes(text));
  const found =
    named.length > 0 ? named : rows.filter(({ id }) => text.length >= 4 && id.startsWith(text));
  if (found.length === 1) return found[0];
  if (found.length === 0) {
    throw new KeelsonError("NOT_FOUND", `There is no ${kind} ${text}.`, { object: text });
  }
  throw new KeelsonError("INVALID_ARGUMENT", `${text} could be several.`, {
    remedy: `Give the whole id: ${found.map(({ id }) => id).join(", ")}.`,
  });
}
