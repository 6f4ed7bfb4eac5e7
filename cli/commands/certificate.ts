import type { Command } from "commander";
import type { Tls, TlsUpload } from "#services/api/tls-schema.ts";
import { action, clock, readPem } from "../context.ts";
import { formatFacts } from "../table.ts";

/** The certificate that browsers and `keelson` see. */
export function addCertificateCommands(program: Command): void {
  const group = program
    .command("certificate")
    .description("the certificate that the node shows: its own CA's, or one of yours");

  group
    .command("show", { isDefault: true })
    .description("show what is served, for which names, and until when")
    .option("--ca", "print only the certificate of the node's own CA, as PEM")
    .action(
      action(async (context, options: { ca?: boolean }) => {
        const tls = await context.api.get<Tls>("/settings/tls");
        if (options.ca) {
          context.print({ caCertificate: tls.caCertificate }, tls.caCertificate.trimEnd());
        } else context.print(tls, () => describe(tls));
      }),
    );

  group
    .command("set")
    .description("serve your own certificate, at once")
    .requiredOption("--cert <file>", "PEM: the server's certificate, then those up to the CA")
    .requiredOption("--key <file>", "PEM: its private key, not encrypted")
    .option("--any-name", "also if it is for none of the node's names")
    .addHelpText(
      "after",
      `
It is checked first; what is wrong is said, and then nothing has changed.

Example:
  keelson certificate set --cert fullchain.pem --key privkey.pem`,
    )
    .action(
      action(async (context, options: { cert: string; key: string; anyName?: boolean }) => {
        const body: TlsUpload = {
          certificate: readPem(options.cert),
          key: readPem(options.key),
          anyName: options.anyName ?? false,
        };
        const tls = await context.api.call<Tls>("PUT", "/settings/tls", body);
        const again = "If keelson does not trust it yet, log in once more.";
        context.print(tls, () => `${describe(tls)}\n${again}`);
      }),
    );

  group
    .command("reset")
    .description("go back to the node's own CA")
    .action(
      action(async (context) => {
        const tls = await context.api.call<Tls>("DELETE", "/settings/tls");
        context.print(tls, () => describe(tls));
      }),
    );
}

const sources: Record<Tls["source"], string> = {
  own: "the node's own CA",
  uploaded: "yours",
  passing: "a passing one: see keelson conditions",
};

function describe(tls: Tls): string {
  const { certificate, names } = tls;
  const missing = names.filter(({ covered }) => !covered).map(({ name }) => name);
  return formatFacts([
    ["certificate", sources[tls.source]],
    ["subject", certificate.subject],
    ["issuer", certificate.issuer],
    ["names", certificate.names.join(", ")],
    ["not for", missing.length === 0 ? null : missing.join(", ")],
    ["valid from", clock(certificate.validFrom)],
    ["valid to", clock(certificate.validTo)],
    ["key", certificate.keyType],
    ["fingerprint", certificate.fingerprint],
    ["chain", tls.chain.map(({ subject }) => subject).join(", ") || null],
    ["uploaded", tls.uploadedAt === null ? null : clock(tls.uploadedAt)],
    ["own CA", tls.caFingerprint],
  ]);
}
