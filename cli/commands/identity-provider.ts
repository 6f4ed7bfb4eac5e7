/** Log-in by an identity provider: its settings; and the console's address that it needs. */
import type { Command } from "commander";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type {
  ConsoleAddress,
  IdentityProvider,
  IdentityProviderChange,
  IdentityProviderTest,
} from "#services/api/identity-schema.ts";
import { action, type CommandContext, readPem } from "../context.ts";
import { formatFacts } from "../table.ts";
import { askSecret, isInteractive, readStandardInput } from "../terminal.ts";

interface SetOptions {
  readonly name?: string;
  readonly issuer?: string;
  readonly clientId?: string;
  readonly clientSecretStdin?: boolean;
  readonly scopes?: string;
  readonly userClaim?: string;
  readonly groupsClaim?: string;
  readonly groupRole?: string[];
  readonly allowGroup?: string[];
  readonly allowDomain?: string[];
  readonly createUsers?: boolean;
  readonly logOutThere?: boolean;
  readonly ca?: string;
}

const collect = (value: string, before: string[] | undefined) => [...(before ?? []), value];

export function addIdentityProviderCommands(program: Command): void {
  const provider = program
    .command("identity-provider")
    .description("log-in by an identity provider (OpenID Connect)");
  provider
    .command("show", { isDefault: true })
    .description("show the settings; the client's secret is never shown")
    .action(
      action(async (context) => {
        const settings = await context.api.get<IdentityProvider>("/identity-provider");
        context.print(settings, () => describe(settings));
      }),
    );
  provider
    .command("set")
    .description("set it up, or change what is given; the rest stays")
    .option("--name <name>", "on the log-in page: Log in with NAME")
    .option("--issuer <url>", "such as https://login.example.org/realms/office")
    .option("--client-id <id>", "as this node is registered there")
    .option("--client-secret-stdin", "read the client's secret from standard input")
    .option("--scopes <words>", "scopes, with commas between")
    .option("--user-claim <claim>", "the claim with the user's name")
    .option("--groups-claim <claim>", "the claim with the groups, such as realm_access.roles")
    .option("--group-role <group=role>", "a group and its role; again for more", collect)
    .option("--allow-group <group>", "only who is in one of these; again for more", collect)
    .option("--allow-domain <domain>", "only verified mail addresses of these", collect)
    .option("--create-users", "make a user at the first log-in")
    .option("--no-create-users", "only who is linked already gets in")
    .option("--log-out-there", "logging out here leads to the provider's log-out page")
    .option("--no-log-out-there", "logging out is here alone")
    .option("--ca <file>", "PEM of the CA that signed the provider's certificate; '' for none")
    .addHelpText(
      "after",
      `
Example:
  keelson identity-provider set --name Office --issuer https://login.example.org/realms/office \\
    --client-id keelson --client-secret-stdin --group-role it=admin < secret`,
    )
    .action(
      action(async (context, options: SetOptions) => {
        const before = await present(context);
        const change = { ...before, ...(await changeOf(options, before === undefined)) };
        const settings = await context.api.call<IdentityProvider>(
          "PUT",
          "/identity-provider",
          change,
        );
        context.print(
          settings,
          () => `${describe(settings)}\n\nTry it: keelson identity-provider test`,
        );
      }),
    );
  provider
    .command("test")
    .description("ask the provider now, and name what is wrong")
    .action(
      action(async (context) => {
        const test = await context.api.call<IdentityProviderTest>(
          "POST",
          "/identity-provider/test",
        );
        context.print(test, () =>
          test.steps
            .map(({ name, ok, message }) => `${ok ? "good " : "WRONG"}  ${name}: ${message}`)
            .join("\n"),
        );
        if (test.ok) return;
        throw new KeelsonError("UNAVAILABLE", "Nobody can log in by this provider.", {
          remedy: "Mend what is marked, then test again. Local users can log in meanwhile.",
        });
      }),
    );
  provider
    .command("remove")
    .description("forget the settings; users and their links stay")
    .action(
      action(async (context) => {
        await context.api.call("DELETE", "/identity-provider");
        context.print({ removed: true }, "The identity provider is removed.");
      }),
    );
  addConsoleAddressCommands(program);
}

function addConsoleAddressCommands(program: Command): void {
  const address = program
    .command("console-address")
    .description("by which address people open the console");
  address
    .command("show", { isDefault: true })
    .description("show it, and whether security keys can be used there")
    .action(
      action(async (context) => {
        const view = await context.api.get<ConsoleAddress>("/console-address");
        context.print(view, () => describeAddress(view));
      }),
    );
  address
    .command("set")
    .description("set it; '' for the node's own name")
    .argument("<url>", "such as https://keelson.example.org")
    .option("--remove-keys", "remove the security keys that are bound to the old name")
    .action(
      action(async (context, url: string, { removeKeys = false }: { removeKeys?: boolean }) => {
        const view = await context.api.call<ConsoleAddress>("PUT", "/console-address", {
          url: url === "" ? null : url,
          removeKeys,
        });
        context.print(view, () => describeAddress(view));
      }),
    );
}

/** What is set, as it would be put back; undefined where nothing is. */
async function present(context: CommandContext): Promise<IdentityProviderChange | undefined> {
  try {
    const settings = await context.api.get<IdentityProvider>("/identity-provider");
    const { clientSecretSet, redirectUri, logOutRedirectUri, changedAt, ...change } = settings;
    return change;
  } catch (error) {
    if (isKeelsonError(error, "NOT_FOUND")) return undefined;
    throw error;
  }
}

async function changeOf(
  options: SetOptions,
  first: boolean,
): Promise<Partial<IdentityProviderChange>> {
  const { name, issuer, clientId, userClaim, groupsClaim, createUsers, logOutThere } = options;
  const given = {
    ...{ name, issuer, clientId, userClaim, groupsClaim, createUsers, logOutThere },
    clientSecret: await secretOf(options, first),
    scopes: options.scopes?.split(/[\s,]+/).filter((scope) => scope !== ""),
    groupRoles: options.groupRole?.map(parseGroupRole),
    allowedGroups: options.allowGroup,
    allowedDomains: options.allowDomain,
    caCertificate:
      options.ca === undefined ? undefined : options.ca === "" ? null : readPem(options.ca),
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

async function secretOf(options: SetOptions, first: boolean): Promise<string | undefined> {
  if (options.clientSecretStdin) return await readStandardInput();
  // To another issuer the kept secret isn't told: api asks for it.
  if ((first || options.issuer !== undefined) && isInteractive()) {
    const secret = await askSecret("Client secret: ");
    return secret === "" ? undefined : secret;
  }
  return undefined;
}

/** The last `=` divides: groups may have one in their names, roles don't. */
function parseGroupRole(text: string): { group: string; role: string } {
  const [, group, role] = /^(.+)=([^=]+)$/.exec(text) ?? [];
  if (group !== undefined) return { group: group.trim(), role: role.trim() };
  throw new KeelsonError("INVALID_ARGUMENT", `--group-role ${text} is not GROUP=ROLE.`, {
    remedy: "Give one like --group-role it=admin.",
  });
}

function describe(settings: IdentityProvider): string {
  const list = (items: readonly string[], none: string) =>
    items.length === 0 ? none : items.join(", ");
  return formatFacts([
    ["Name", settings.name],
    ["Issuer", settings.issuer],
    ["Client id", settings.clientId],
    ["Client secret", settings.clientSecretSet ? "set" : "missing"],
    ["Redirect URI", settings.redirectUri],
    ["After log-out", settings.logOutRedirectUri],
    ["Scopes", settings.scopes.join(" ")],
    ["User claim", settings.userClaim],
    ["Groups claim", settings.groupsClaim],
    [
      "Groups and roles",
      list(
        settings.groupRoles.map(({ group, role }) => `${group} = ${role}`),
        "none: nobody gets in",
      ),
    ],
    ["Only groups", list(settings.allowedGroups, "all")],
    ["Only domains", list(settings.allowedDomains, "all")],
    ["Makes users", settings.createUsers ? "at the first log-in" : "no"],
    ["Logs out there", settings.logOutThere ? "where it has a page for it" : "no"],
    ["CA certificate", settings.caCertificate === null ? "public authorities" : "given"],
  ]);
}

function describeAddress(view: ConsoleAddress): string {
  return formatFacts([
    ["Address", view.set ? view.url : `${view.url} (of the node's name)`],
    ["Security keys", view.securityKeyProblem ?? `bound to ${view.securityKeyName}`],
  ]);
}
