/**
 * Which certificate is served:
 *
 *   uploaded, and it can be used   that one
 *   else                           the own CA's, anew when the node got another name or address
 *   neither can be opened          a passing one, so that somebody can log in and see why
 *
 * `tls/uploaded.json` is written as a whole before it is served, and served by every listener at
 * once; connections that are open keep theirs.
 */
import { X509Certificate } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { SecretBox } from "#lib/seal/secret-box.ts";
import type { Log } from "#lib/service/log.ts";
import { readStateFile, writeStateFile } from "#lib/service/state-file.ts";
import { passingCertificate, type ServerCertificate, serverCertificate } from "./certificate.ts";
import type { Clock } from "./clock.ts";
import type { Tls, TlsUpload } from "./tls-schema.ts";
import { checkUpload, covers, factsOf } from "./uploaded-certificate.ts";

export interface TlsOptions {
  readonly state: string;
  readonly nodeName: string;
  /** Names and addresses that clients use, now. */
  readonly names: () => readonly string[];
  readonly box: SecretBox;
  readonly clock: Clock;
  readonly log: Log;
}

const fileSchema = z.strictObject({
  version: z.literal(1),
  chain: z.string(),
  /** Sealed. */
  key: z.string(),
  uploadedAt: z.string(),
});
type UploadedFile = z.infer<typeof fileSchema>;

const keyPlace = "tls/uploaded.json#key";
/** Told so long before the end; of a short-lived one, for its last third. */
const warnMs = 30 * 86_400_000;

export interface TlsState {
  /** Why the uploaded certificate, or the own CA, can't be used. */
  readonly unusable: string | null;
  /** Of an uploaded one: when it ends, and its name. */
  readonly ends: { readonly at: string; readonly subject: string; readonly soon: boolean } | null;
}

export class TlsCertificates {
  readonly #options: TlsOptions;
  readonly #listeners = new Set<(served: ServerCertificate) => void>();
  #own!: ServerCertificate;
  #uploaded: { served: ServerCertificate; at: string } | undefined;
  #source: Tls["source"] = "own";
  #unusable: string | null = null;
  #names = "";
  #renewing: Promise<void> | undefined;

  private constructor(options: TlsOptions) {
    this.#options = options;
  }

  static async open(options: TlsOptions): Promise<TlsCertificates> {
    const tls = new TlsCertificates(options);
    await tls.#openOwn();
    tls.#openUploaded();
    return tls;
  }

  get served(): ServerCertificate {
    return this.#uploaded?.served ?? this.#own;
  }

  /** SHA-256 of the certificate itself, as a browser shows it; `served.fingerprint` is its CA's. */
  get leafFingerprint(): string {
    return new X509Certificate(this.served.chain).fingerprint256;
  }

  /** Told when another certificate is served. */
  onChange(listener: (served: ServerCertificate) => void): void {
    this.#listeners.add(listener);
  }

  /** Signs a new certificate if the node is known by another name or address than before. */
  async renew(): Promise<void> {
    if (this.#renewing !== undefined) return this.#renewing;
    if (this.#options.names().join(" ") === this.#names) return;
    this.#renewing = this.#openOwn().finally(() => {
      this.#renewing = undefined;
    });
    await this.#renewing;
    if (this.#uploaded !== undefined) return;
    this.#options.log.info("certificate made anew", { names: this.#names });
    this.#tell();
  }

  async #openOwn(): Promise<void> {
    const { state, nodeName, box, log } = this.#options;
    const names = this.#options.names();
    try {
      this.#own = await serverCertificate(state, nodeName, names, box);
      this.#source = "own";
    } catch (error) {
      // Damage is for a person to mend; a key of another node must not lock everybody out.
      if (!isKeelsonError(error, "PERMISSION_DENIED")) throw error;
      this.#unusable = `The own CA's key: ${explainError(error)}`;
      log.error("the CA's key can't be opened; a passing certificate is served", {
        why: explainError(error),
      });
      this.#own = await passingCertificate(nodeName, names);
      this.#source = "passing";
    }
    this.#names = names.join(" ");
  }

  get #path(): string {
    return join(this.#options.state, "tls", "uploaded.json");
  }

  #openUploaded(): void {
    const { box, log } = this.#options;
    try {
      const raw = readStateFile(this.#path);
      if (raw === undefined) return;
      const parsed = fileSchema.safeParse(raw);
      if (!parsed.success) {
        throw new KeelsonError("FORMAT_CORRUPT", `${this.#path} can't be read.`, {
          remedy: "Upload the certificate again.",
        });
      }
      const { chain, key, uploadedAt } = parsed.data;
      this.#serve(chain, box.open(key, keyPlace), uploadedAt);
    } catch (error) {
      this.#unusable = `The uploaded certificate: ${explainError(error)}`;
      log.error("the uploaded certificate can't be used; the own one is served", {
        why: explainError(error),
      });
    }
  }

  #serve(chain: string, key: string, at: string): void {
    const certificates = splitChain(chain);
    const top = certificates.at(-1)!;
    this.#uploaded = { served: { key, chain, fingerprint: top.fingerprint256 }, at };
  }

  /** INVALID_ARGUMENT says what is wrong with it; then nothing has changed. */
  upload(body: TlsUpload): Tls {
    const { clock, box } = this.#options;
    const names = body.anyName === true ? [] : this.#options.names();
    const checked = checkUpload(body.certificate, body.key, names, Date.parse(clock.now()));
    const uploadedAt = clock.now();
    const file: UploadedFile = {
      version: 1,
      chain: checked.chain,
      key: box.seal(checked.key, keyPlace),
      uploadedAt,
    };
    writeStateFile(this.#path, JSON.stringify(file));
    this.#serve(checked.chain, checked.key, uploadedAt);
    this.#forgiveUploaded();
    this.#tell();
    return this.view();
  }

  /** Back to the node's own CA. Does nothing if that is what is served. */
  reset(): Tls {
    rmSync(this.#path, { force: true });
    this.#uploaded = undefined;
    this.#forgiveUploaded();
    this.#tell();
    return this.view();
  }

  #forgiveUploaded(): void {
    if (this.#source !== "passing") this.#unusable = null;
  }

  #tell(): void {
    for (const listener of this.#listeners) listener(this.served);
  }

  view(): Tls {
    const [leaf, ...above] = splitChain(this.served.chain);
    const own = splitChain(this.#own.chain).at(-1)!;
    return {
      source: this.#uploaded === undefined ? this.#source : "uploaded",
      certificate: factsOf(leaf),
      chain: above.map(factsOf),
      names: this.#options.names().map((name) => ({ name, covered: covers(leaf, name) })),
      uploadedAt: this.#uploaded?.at ?? null,
      caCertificate: own.toString(),
      caFingerprint: own.fingerprint256,
    };
  }

  state(): TlsState {
    if (this.#uploaded === undefined) return { unusable: this.#unusable, ends: null };
    const all = splitChain(this.#uploaded.served.chain);
    const first = all.reduce((a, b) => (b.validToDate < a.validToDate ? b : a));
    const leftMs = first.validToDate.getTime() - Date.parse(this.#options.clock.now());
    const wholeMs = first.validToDate.getTime() - first.validFromDate.getTime();
    return {
      unusable: this.#unusable,
      ends: {
        at: first.validToDate.toISOString(),
        subject: factsOf(first).subject,
        soon: leftMs < Math.min(warnMs, wholeMs / 3),
      },
    };
  }
}

function splitChain(chain: string): X509Certificate[] {
  const blocks = chain.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}
