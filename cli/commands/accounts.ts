/** Users, roles, API tokens, sessions and the second factor. */
import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import type {
  AccountSession,
  RecoveryCodes,
  RoleDocument,
  SessionInfo,
  Token,
  TokenCreated,
  Totp,
  TotpEnrolment,
  User,
} from "#services/api/accounts-schema.ts";
import { action, type CommandContext, clock, collect } from "../context.ts";
import { formatFacts } from "../table.ts";
import { ask, askSecret, isInteractive, readStandardInput } from "../terminal.ts";
import { addUserAccessCommands } from "./user-access.ts";

export function addAccountCommands(program: Command): void {
  addUserCommands(program);
  addRoleCommands(program);
  addTokenCommands(program);
  addSessionListCommands(program);
  addTotpCommands(program);
}

const part = encodeURIComponent;

/** Never from the arguments: they are in the shell's history, and others see them. */
export async function takePassword(stdin: boolean | undefined, what: string): Promise<string> {
  let password: string;
  if (stdin) password = await readStandardInput();
  else if (isInteractive()) {
    password = await askSecret(`${what}: `);
    if ((await askSecret(`${what} again: `)) !== password) {
      throw new KeelsonError("INVALID_ARGUMENT", "The passwords differ.");
    }
  } else password = "";
  if (password !== "") return password;
  throw new KeelsonError("INVALID_ARGUMENT", "No password was given.", {
    remedy: "Without a terminal, use --password-stdin.",
  });
}

async function ownPassword(stdin: boolean | undefined): Promise<string> {
  if (stdin) return await readStandardInput();
  if (isInteractive()) return await askSecret("Your password: ");
  throw new KeelsonError("INVALID_ARGUMENT", "No password was given.", {
    remedy: "Without a terminal, use --password-stdin.",
  });
}

interface UserOptions {
  readonly name?: string;
  readonly role?: string[];
  readonly passwordStdin?: boolean;
  readonly password?: boolean;
  readonly keepPassword?: boolean;
}

function addUserCommands(program: Command): void {
  const user = program.command("user").alias("users").description("people who may log in");
  user
    .command("list", { isDefault: true })
    .description("list them")
    .action(
      action(async (context) =>
        context.table(
          await context.api.get<User[]>("/users"),
          [
            { title: "USER", value: ({ id }) => id, whole: true },
            { title: "NAME", value: ({ displayName }) => displayName },
            { title: "ROLES", value: ({ roles }) => roles.join(", ") },
            {
              title: "STATE",
              value: ({ disabled, mustChangePassword }) =>
                disabled ? "disabled" : mustChangePassword ? "new password due" : "active",
            },
            { title: "2ND FACTOR", value: ({ hasTotp }) => (hasTotp ? "TOTP" : null) },
            { title: "SESSIONS", value: ({ sessionCount }) => sessionCount, align: "right" },
            { title: "TOKENS", value: ({ tokenCount }) => tokenCount, align: "right" },
            {
              title: "LAST LOG-IN",
              value: ({ lastLogInAt }) => (lastLogInAt === null ? null : clock(lastLogInAt)),
              whole: true,
            },
          ],
          "No users.",
        ),
      ),
    );
  user
    .command("add")
    .description("make a user; the password must be changed at the first log-in")
    .argument("<user>", "name to log in with")
    .option("--name <text>", "name to show")
    .option("--role <role>", "what the user may do (repeatable); see `keelson role`", collect)
    .option("--password-stdin", "read the password from standard input")
    .option("--no-password", "no log-in by password: by an identity provider only")
    .option("--keep-password", "it need not be changed: for programs' accounts")
    .action(
      action(async (context, id: string, options: UserOptions) => {
        const password =
          options.password === false
            ? null
            : await takePassword(options.passwordStdin, `Password for ${id}`);
        const created = await context.api.call<User>("POST", "/users", {
          id,
          displayName: options.name ?? "",
          roles: options.role ?? [],
          password,
          mustChangePassword: options.keepPassword !== true,
        });
        context.print(created, `${created.id} may log in.`);
      }),
    );
  user
    .command("set")
    .description("change what a user may do, or the name shown")
    .argument("<user>", "name")
    .option("--name <text>", "name to show")
    .option("--role <role>", "the roles from now on (repeatable)", collect)
    .action(
      action(async (context, id: string, { name, role }: UserOptions) => {
        if (name === undefined && role === undefined) {
          throw new KeelsonError("INVALID_ARGUMENT", "What is to change?", {
            remedy: "Give --name or --role.",
          });
        }
        const changed = await context.api.call<User>("PATCH", `/users/${part(id)}`, {
          ...(name === undefined ? {} : { displayName: name }),
          ...(role === undefined ? {} : { roles: role }),
        });
        context.print(changed, `${changed.id}: ${changed.roles.join(", ") || "no role"}.`);
      }),
    );
  for (const [name, disabled, description] of [
    ["disable", true, "keep a user out, at once"],
    ["enable", false, "let a disabled user in again"],
  ] as const) {
    user
      .command(name)
      .description(description)
      .argument("<user>", "name")
      .action(
        action(async (context, id: string) => {
          const changed = await context.api.call<User>("PATCH", `/users/${part(id)}`, { disabled });
          context.print(changed, `${changed.id} is ${name}d.`);
        }),
      );
  }
  user
    .command("password")
    .description("set another user's password; it must be changed at the next log-in")
    .argument("<user>", "name")
    .option("--password-stdin", "read the password from standard input")
    .action(
      action(async (context, id: string, options: UserOptions) => {
        const password = await takePassword(options.passwordStdin, `New password for ${id}`);
        await context.api.call("PUT", `/users/${part(id)}/password`, { password });
        context.print({ user: id }, `${id} logs in with it, and then chooses another.`);
      }),
    );
  user
    .command("delete")
    .description("delete a user, with sessions and tokens")
    .argument("<user>", "name")
    .action(
      action(async (context, id: string) => {
        await context.api.call("DELETE", `/users/${part(id)}`);
        context.print({ user: id }, `${id} is deleted.`);
      }),
    );
  user
    .command("reset-totp")
    .description("for somebody who lost authenticator and recovery codes")
    .argument("<user>", "name")
    .action(
      action(async (context, id: string) => {
        await context.api.call("DELETE", `/users/${part(id)}/totp`);
        context.print({ user: id }, `${id} logs in without a code.`);
      }),
    );
  addUserAccessCommands(user);
}

interface RoleOptions {
  readonly permission?: string[];
  readonly description?: string;
}

function addRoleCommands(program: Command): void {
  const role = program.command("role").alias("roles").description("what users may do");
  role
    .command("list", { isDefault: true })
    .description("list them, those built in first")
    .action(
      action(async (context) =>
        context.table(
          await context.api.get<RoleDocument[]>("/roles"),
          [
            { title: "ROLE", value: ({ id }) => id, whole: true },
            { title: "BUILT IN", value: ({ builtIn }) => (builtIn ? "yes" : "no") },
            { title: "USERS", value: ({ users }) => users.join(", ") },
            { title: "PERMISSIONS", value: ({ permissions }) => permissions.join(" ") },
            { title: "DESCRIPTION", value: ({ description }) => description },
          ],
          "No roles.",
        ),
      ),
    );
  role
    .command("permissions")
    .description("list the permissions that a role can have")
    .action(
      action(async (context) => {
        const all = await context.api.get<string[]>("/permissions");
        context.print(all, all.join("\n"));
      }),
    );
  role
    .command("add")
    .description("make a role")
    .argument("<role>", "name")
    .option("--permission <permission>", "such as storage:read (repeatable)", collect)
    .option("--description <text>", "what it is for")
    .action(
      action(async (context, id: string, options: RoleOptions) => {
        const created = await context.api.call<RoleDocument>("POST", "/roles", {
          id,
          description: options.description ?? "",
          permissions: options.permission ?? [],
        });
        context.print(created, `${created.id}: ${created.permissions.join(" ") || "nothing"}.`);
      }),
    );
  role
    .command("set")
    .description("change a role; whoever has it may do that, at once")
    .argument("<role>", "name")
    .option("--permission <permission>", "the permissions from now on (repeatable)", collect)
    .option("--description <text>", "what it is for")
    .action(
      action(async (context, id: string, { permission, description }: RoleOptions) => {
        const changed = await context.api.call<RoleDocument>("PATCH", `/roles/${part(id)}`, {
          ...(permission === undefined ? {} : { permissions: permission }),
          ...(description === undefined ? {} : { description }),
        });
        context.print(changed, `${changed.id}: ${changed.permissions.join(" ") || "nothing"}.`);
      }),
    );
  role
    .command("delete")
    .description("delete a role that nobody has")
    .argument("<role>", "name")
    .action(
      action(async (context, id: string) => {
        await context.api.call("DELETE", `/roles/${part(id)}`);
        context.print({ role: id }, `${id} is deleted.`);
      }),
    );
}

function addTokenCommands(program: Command): void {
  const token = program.command("token").alias("tokens").description("API tokens, for programs");
  token
    .command("list", { isDefault: true })
    .description("list your own")
    .option("--user <user>", "another user's")
    .action(
      action(async (context, { user }: { user?: string }) =>
        context.table(
          await context.api.get<Token[]>(
            user === undefined ? "/tokens" : `/users/${part(user)}/tokens`,
          ),
          [
            { title: "ID", value: ({ id }) => id, whole: true },
            { title: "NAME", value: ({ name }) => name },
            { title: "SCOPE", value: ({ permissions }) => permissions.join(" ") },
            {
              title: "EXPIRES",
              value: ({ expired, expiresAt }) => (expired ? "expired" : clock(expiresAt)),
              whole: true,
            },
            {
              title: "LAST USED",
              value: ({ lastUsedAt, lastUsedFrom }) =>
                lastUsedAt === null ? "never" : `${clock(lastUsedAt)} from ${lastUsedFrom}`,
            },
          ],
          "No tokens.",
        ),
      ),
    );
  token
    .command("create")
    .description("make a token; it is printed this once")
    .argument("<name>", "what it is for")
    .requiredOption("--permission <permission>", "what it may do (repeatable)", collect)
    .option("--days <n>", "for how long, at most 365", "90")
    .action(
      action(async (context, name: string, given: { permission: string[]; days: string }) => {
        const days = Number(given.days);
        if (!(days > 0 && days <= 365)) {
          throw new KeelsonError("INVALID_ARGUMENT", `${given.days} is not a number of days.`, {
            remedy: "Give one from 1 to 365.",
          });
        }
        const expiresAt = new Date(Date.now() + days * 86_400_000).toISOString();
        const { permission: permissions } = given;
        const body = { name, permissions, expiresAt };
        const created = await context.api.call<TokenCreated>("POST", "/tokens", body);
        process.stderr.write("Keep it now: it is not shown again.\n");
        context.print(created, created.token);
      }),
    );
  token
    .command("revoke")
    .description("end a token, at once")
    .argument("<id>", "as `keelson token` shows it")
    .option("--user <user>", "another user's")
    .action(
      action(async (context, id: string, { user }: { user?: string }) => {
        const path = user === undefined ? "/tokens" : `/users/${part(user)}/tokens`;
        await context.api.call("DELETE", `${path}/${part(id)}`);
        context.print({ id }, `${id} is revoked.`);
      }),
    );
}

function addSessionListCommands(program: Command): void {
  const session = program.command("session").alias("sessions").description("who is logged in");
  session
    .command("list", { isDefault: true })
    .description("list your own sessions")
    .option("--user <user>", "another user's")
    .action(
      action(async (context, { user }: { user?: string }) =>
        context.table(
          await context.api.get<AccountSession[]>(
            user === undefined ? "/sessions" : `/users/${part(user)}/sessions`,
          ),
          [
            { title: "ID", value: ({ id }) => id, whole: true },
            { title: "FROM", value: ({ address }) => address },
            { title: "BY", value: ({ how }) => how },
            { title: "SINCE", value: ({ createdAt }) => clock(createdAt), whole: true },
            { title: "UNTIL", value: ({ expiresAt }) => clock(expiresAt), whole: true },
            { title: "THIS ONE", value: ({ current }) => (current ? "yes" : null) },
          ],
          "No sessions.",
        ),
      ),
    );
  session
    .command("end")
    .description("end a session, or all: your own but this one, or another user's")
    .argument("[id]", "as `keelson session` shows it")
    .option("--all", "all of them")
    .option("--user <user>", "another user's")
    .action(
      action(async (context, id: string | undefined, given: { all?: boolean; user?: string }) => {
        if ((id === undefined) === (given.all !== true)) {
          throw new KeelsonError("INVALID_ARGUMENT", "Which session?", {
            remedy: "Give its id, or --all.",
          });
        }
        const path = given.user === undefined ? "/sessions" : `/users/${part(given.user)}/sessions`;
        await context.api.call("DELETE", id === undefined ? path : `${path}/${part(id)}`);
        context.print({ ended: id ?? "all" }, id === undefined ? "All are ended." : "It is ended.");
      }),
    );
  program
    .command("whoami")
    .description("who you are at the node, and what you may do")
    .action(
      action(async (context) => {
        const info = await context.api.get<SessionInfo>("/session");
        context.print(info, () =>
          formatFacts([
            ["user", info.user],
            ["roles", info.roles.join(", ") || null],
            ["may", info.permissions.join(" ") || null],
            ["until", clock(info.expiresAt)],
          ]),
        );
      }),
    );
}

function addTotpCommands(program: Command): void {
  const totp = program.command("totp").description("your second factor: codes of an authenticator");
  const codes = (context: CommandContext, given: RecoveryCodes) => {
    process.stderr.write("Recovery codes, each good once. Keep them now: not shown again.\n");
    context.print(given, given.codes.join("\n"));
  };
  totp
    .command("show", { isDefault: true })
    .description("whether log-in asks for a code")
    .action(
      action(async (context) => {
        const state = await context.api.get<Totp>("/session/totp");
        const left = `, ${state.recoveryCodesLeft} recovery codes left`;
        context.print(state, `${state.state}${state.state === "on" ? left : ""}`);
      }),
    );
  totp
    .command("enrol")
    .description("show the secret for an authenticator, then take its first code")
    .option("--password-stdin", "read your password from standard input; confirm later")
    .action(
      action(async (context, { passwordStdin }: UserOptions) => {
        const password = await ownPassword(passwordStdin);
        const given = await context.api.call<TotpEnrolment>("POST", "/session/totp", { password });
        if (passwordStdin) return context.print(given, `${given.secret}\n${given.url}`);
        process.stderr.write(`Secret: ${given.secret}\n${given.url}\n`);
        const code = (await ask("Code it shows: ")).trim();
        codes(context, await context.api.call("POST", "/session/totp/confirm", { code }));
      }),
    );
  totp
    .command("confirm")
    .description("turn it on with a code of the authenticator")
    .argument("<code>", "six digits")
    .action(
      action(async (context, code: string) =>
        codes(context, await context.api.call("POST", "/session/totp/confirm", { code })),
      ),
    );
  totp
    .command("recovery-codes")
    .description("make new recovery codes; the old ones are no longer good")
    .option("--password-stdin", "read your password from standard input")
    .action(
      action(async (context, { passwordStdin }: UserOptions) => {
        const password = await ownPassword(passwordStdin);
        codes(
          context,
          await context.api.call("POST", "/session/totp/recovery-codes", { password }),
        );
      }),
    );
  totp
    .command("disable")
    .description("log in without codes again")
    .option("--password-stdin", "read your password from standard input")
    .action(
      action(async (context, { passwordStdin }: UserOptions) => {
        const password = await ownPassword(passwordStdin);
        await context.api.call("POST", "/session/totp/disable", { password });
        context.print({ state: "off" }, "Log-in asks for no code.");
      }),
    );
}
