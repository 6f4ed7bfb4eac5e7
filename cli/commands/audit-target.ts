/** Where the audit log's heads are sent. */
import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import type {
  AuditTarget,
  AuditTargetChange,
  AuditTargetTest,
} from "#services/api/audit-target-schema.ts";
import { action, clock, readPem } from "../context.ts";
import { formatFacts } from "../table.ts";
import { readStandardInput } from "../terminal.ts";

const path = "/settings/audit-target";

interface SetOptions {
  readonly ca?: string;
  readonly tokenStdin?: boolean;
  /** False: --no-token. */
  readonly token?: boolean;
  readonly every?: string;
  readonly entries?: string;
}

export function addAuditTargetCommands(audit: Command): void {
  const target = audit
    .command("target")
    .description("where the log's heads are sent, out of the node's reach");
  target
    .command("show", { isDefault: true })
    .description("show it, and whether heads are taken")
    .action(
      action(async (context) => {
        const view = await context.api.get<AuditTarget>(path);
        context.print(view, () => describe(view));
      }),
    );
  target
    .command("set")
    .description("send heads there; what isn't given stays as it is")
    .argument("<url>", "syslog+tls://HOST[:6514], syslog+tcp://HOST:PORT or https://HOST/PATH")
    .option("--ca <file>", "PEM of the CA that signed its certificate; '' for none")
    .option("--token-stdin", "https: read a bearer token from standard input")
    .option("--no-token", "https: without a token from now on")
    .option("--every <seconds>", "send a new head after this time, 10 to 86400")
    .option("--entries <n>", "or after so many entries, 1 to 10000")
    .addHelpText(
      "after",
      `
What the target has received is what audit verify takes:
  keelson audit target set syslog+tls://logs.example.org --ca logs-ca.pem
  keelson audit verify --heads /var/log/keelson-heads.log`,
    )
    .action(
      action(async (context, url: string, options: SetOptions) => {
        const { settings } = await context.api.get<AuditTarget>(path);
        const change: AuditTargetChange = {
          url,
          ...(options.every === undefined
            ? kept("everySeconds", settings?.everySeconds)
            : { everySeconds: wholeNumber("--every", options.every) }),
          ...(options.entries === undefined
            ? kept("everyEntries", settings?.everyEntries)
            : { everyEntries: wholeNumber("--entries", options.entries) }),
          caCertificate:
            options.ca === undefined
              ? (settings?.caCertificate ?? null)
              : options.ca === ""
                ? null
                : readPem(options.ca),
          ...(options.tokenStdin
            ? { token: await readStandardInput() }
            : options.token === false
              ? { token: null }
              : {}),
        };
        const view = await context.api.call<AuditTarget>("PUT", path, change);
        context.print(view, () => `${describe(view)}\n\nTry it: keelson audit target test`);
      }),
    );
  target
    .command("test")
    .description("send the newest head now")
    .action(
      action(async (context) => {
        const test = await context.api.call<AuditTargetTest>("POST", `${path}/test`);
        if (test.ok) return context.print(test, test.message);
        throw new KeelsonError("UNAVAILABLE", test.message);
      }),
    );
  target
    .command("remove")
    .description("send heads nowhere")
    .action(
      action(async (context) => {
        await context.api.call("DELETE", path);
        context.print({ removed: true }, "Heads stay on the node.");
      }),
    );
}

function kept(name: "everySeconds" | "everyEntries", value: number | undefined) {
  return value === undefined ? {} : { [name]: value };
}

function wholeNumber(option: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new KeelsonError("INVALID_ARGUMENT", `${option} ${text} is not a whole number.`);
}

function describe({ settings, delivered, waiting, failure }: AuditTarget): string {
  if (settings === null) return "Heads stay on the node: no target is set.";
  const { everyEntries, everySeconds } = settings;
  return formatFacts([
    ["Target", settings.url],
    ["CA certificate", settings.caCertificate === null ? "public authorities" : "given"],
    ["Token", settings.tokenSet ? "set" : "none"],
    ["Sends", `after ${everyEntries} entries, or ${everySeconds} s`],
    [
      "Taken",
      delivered === null
        ? "none since the service started"
        : `entry ${delivered.sequence}, ${clock(delivered.at)}`,
    ],
    ["Waiting", String(waiting)],
    ["Problem", failure === null ? "none" : `since ${clock(failure.since)}: ${failure.reason}`],
  ]);
}
