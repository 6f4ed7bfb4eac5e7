import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { sameFingerprint } from "#lib/rpc/server-ca.ts";
import type { LogInChallenge, Session } from "#services/api/accounts-schema.ts";
import { Connection, fetchCa } from "../connection.ts";
import { action, readPem } from "../context.ts";
import { readSettings, serverUrl, writeSettings } from "../settings.ts";
import { ask, askSecret, isInteractive } from "../terminal.ts";

interface LogInOptions {
  readonly user: string;
  readonly passwordStdin?: boolean;
  readonly ca?: string;
  readonly trust?: string;
}

const lifetimeSeconds = 30 * 86_400;

export function addSessionCommands(program: Command): void {
  program
    .command("login")
    .description("log in at a node and remember it")
    .argument("[server]", "its address, such as https://192.0.2.10 or 127.0.0.1:8443")
    .option("--user <name>", "user name", "admin")
    .option(
      "--password-stdin",
      "read the password from standard input; a code, if asked for, from the second line",
    )
    .option("--ca <file>", "trust the CA in this PEM file")
    .option("--trust <fingerprint>", "trust the node's CA if it has this SHA-256 fingerprint")
    .addHelpText(
      "after",
      `
The first time, the fingerprint of the node's own CA is shown: compare it with the one on the
node's console. It is remembered then, and any other is refused.

Examples:
  keelson login https://192.0.2.10
  keelson login 127.0.0.1:8443 --password-stdin --trust AB:CD:... < password`,
    )
    .action(
      action(async (context, given: string | undefined, options: LogInOptions) => {
        const settings = readSettings();
        const text = given ?? context.server ?? process.env.KEELSON_SERVER ?? settings.current;
        if (text === null || text === "") {
          throw new KeelsonError("INVALID_ARGUMENT", "Which server?", {
            remedy: "Give its address: keelson login https://ADDRESS",
          });
        }
        const url = serverUrl(text);
        const ca = await trustedCa(url, options, settings.servers[url]?.ca ?? null);
        const [firstLine = "", secondLine] = options.passwordStdin
          ? readFileSync(0, "utf8").split(/\r?\n/)
          : [];
        const password = options.passwordStdin
          ? firstLine
          : isInteractive()
            ? await askSecret(`Password of ${options.user} at ${url}: `)
            : undefined;
        if (password === undefined || password === "") {
          throw new KeelsonError("INVALID_ARGUMENT", "No password was given.", {
            remedy: "Without a terminal, use --password-stdin.",
          });
        }
        const connection = new Connection(url, null, ca);
        try {
          const answer = await connection.call<Session | LogInChallenge>("POST", "/session", {
            user: options.user,
            password,
            lifetimeSeconds,
          });
          const session =
            "challenge" in answer ? await secondStep(connection, answer, secondLine) : answer;
          const { token, expiresAt, user } = session;
          settings.servers[url] = { token, user, expiresAt, ca };
          writeSettings({ ...settings, current: url });
          context.print({ server: url, user, expiresAt }, `Logged in at ${url} as ${user}.`);
        } finally {
          await connection.close();
        }
      }),
    );

  program
    .command("logout")
    .description("end the session and forget its token")
    .action(
      action(async (context) => {
        const { api } = context;
        await api.call("DELETE", "/session").catch((error) => {
          if (!(error instanceof KeelsonError) || error.code !== "UNAUTHENTICATED") throw error;
        });
        const settings = readSettings();
        const server = settings.servers[api.url];
        if (server !== undefined) settings.servers[api.url] = { ...server, token: null };
        writeSettings(settings);
        context.print({ server: api.url }, `Logged out at ${api.url}.`);
      }),
    );

  program
    .command("password")
    .description("change your password; your other sessions end")
    .option("--password-stdin", "read the old and the new password, one a line")
    .action(
      action(async (context, options: { passwordStdin?: boolean }) => {
        const { api } = context;
        let current: string;
        let next: string;
        if (options.passwordStdin) {
          [current = "", next = ""] = readFileSync(0, "utf8").split(/\r?\n/);
        } else if (isInteractive()) {
          current = await askSecret("Old password: ");
          next = await askSecret("New password: ");
          if ((await askSecret("New password again: ")) !== next) {
            throw new KeelsonError("INVALID_ARGUMENT", "The new passwords differ.");
          }
        } else {
          throw new KeelsonError("INVALID_ARGUMENT", "No password was given.", {
            remedy: "Without a terminal, use --password-stdin.",
          });
        }
        await api.call("PUT", "/session/password", { current, next });
        context.print({ changed: true }, "The password is changed.");
      }),
    );
}

/** The code of an authenticator, or a recovery code. */
async function secondStep(
  connection: Connection,
  { challenge, methods }: LogInChallenge,
  given: string | undefined,
): Promise<Session> {
  if (!methods.includes("totp")) {
    throw new KeelsonError("UNSUPPORTED", "This account asks for a security key.", {
      remedy: "Make an API token in the console: keelson takes it as KEELSON_TOKEN.",
    });
  }
  const code = given || (isInteractive() ? await ask("Code of the authenticator: ") : "");
  if (code.trim() !== "") {
    const answer = { challenge, code: code.trim() };
    return await connection.call<Session>("POST", "/session/second-factor", answer);
  }
  throw new KeelsonError("INVALID_ARGUMENT", "This account asks for a code too.", {
    remedy: "Without a terminal, put it on the second line of standard input.",
  });
}

/** The PEM to verify the server by; null for HTTP and for servers that public CAs vouch for. */
async function trustedCa(
  url: string,
  options: LogInOptions,
  known: string | null,
): Promise<string | null> {
  if (url.startsWith("http:")) return null;
  if (options.ca !== undefined) return readPem(options.ca);
  const { pem, fingerprint } = await fetchCa(url);
  if (pem === known) return known;
  if (options.trust !== undefined) {
    if (sameFingerprint(options.trust, fingerprint)) return pem;
    throw new KeelsonError("PERMISSION_DENIED", `The node at ${url} has another fingerprint.`, {
      remedy: `It shows ${fingerprint}: is it the right node?`,
    });
  }
  const warning = known === null ? "" : "WARNING: it is not the one that was known until now.\n";
  if (!isInteractive()) {
    throw new KeelsonError("PERMISSION_DENIED", `The node at ${url} is not trusted yet.`, {
      remedy: `Compare its fingerprint, then give --trust ${fingerprint}`,
    });
  }
  process.stderr.write(`${warning}${url} has a CA of its own with the SHA-256 fingerprint\n`);
  process.stderr.write(`  ${fingerprint}\n`);
  const answer = await ask("Is it the one that the node's own screen shows as its CA's? [y/N] ");
  if (/^y(es)?$/i.test(answer.trim())) return pem;
  throw new KeelsonError("CANCELLED", "Not trusted, not logged in.");
}
