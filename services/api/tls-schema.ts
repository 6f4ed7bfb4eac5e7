/**
 * The certificate that browsers and `keelson` see:
 *
 *   GET    /settings/tls   -> Tls            [settings:read]
 *   PUT    /settings/tls   TlsUpload -> Tls  [settings:write]  served at once, without a restart
 *   DELETE /settings/tls   -> Tls            [settings:write]  back to the node's own CA
 */
import { z } from "zod";

const time = z.string();

const certificateSchema = z.object({
  subject: z.string(),
  issuer: z.string(),
  /** DNS names and IP addresses. */
  names: z.array(z.string()),
  validFrom: time,
  validTo: time,
  /** `EC P-256`, `RSA 4096`. */
  keyType: z.string(),
  serial: z.string(),
  /** SHA-256. */
  fingerprint: z.string(),
});

export const tlsSchema = z
  .object({
    /** `passing`: neither could be read, see the conditions; kept nowhere. */
    source: z.enum(["own", "uploaded", "passing"]),
    certificate: certificateSchema,
    /** What is sent after it, up to the CA. */
    chain: z.array(certificateSchema),
    /** This node's names and addresses, and whether the certificate is good for them. */
    names: z.array(z.object({ name: z.string(), covered: z.boolean() })),
    uploadedAt: time.nullable(),
    /** The certificate of the node's own CA, to be trusted by browsers; PEM. */
    caCertificate: z.string(),
    caFingerprint: z.string(),
  })
  .meta({ id: "Tls" });

const pem = z.string().max(64 * 1024);

export const tlsUploadSchema = z
  .strictObject({
    /** PEM: the server's certificate first, then those between it and the CA. */
    certificate: pem,
    /** PEM, not encrypted: PKCS #8, PKCS #1 or SEC 1. */
    key: pem,
    /** Takes a certificate that is for none of this node's names, such as one behind a proxy. */
    anyName: z.boolean().default(false),
  })
  .meta({ id: "TlsUpload" });

export type CertificateFacts = z.infer<typeof certificateSchema>;
export type Tls = z.infer<typeof tlsSchema>;
export type TlsUpload = z.input<typeof tlsUploadSchema>;
