/** A security key in software (WebAuthn section 6), that answers whatever it is told to. */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { isoCBOR } from "@simplewebauthn/server/helpers";

type Options = Record<string, unknown>;

export interface Answering {
  /** What the browser would say; a lie about it is the test. */
  readonly origin: string;
  readonly rpId: string;
  readonly challenge: string;
  readonly userVerified?: boolean;
  readonly userPresent?: boolean;
  readonly counter?: number;
  readonly userHandle?: string | undefined;
  /** `webauthn.get` where a log-in is answered. */
  readonly type?: string;
  readonly crossOrigin?: boolean;
}

const base64url = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64url");
const sha256 = (content: string | Uint8Array) => createHash("sha256").update(content).digest();

export class FixtureSecurityKey {
  readonly id = base64url(randomBytes(32));
  counter = 0;
  /** As it was told at registration. */
  userHandle: string | undefined;
  readonly #privateKey: KeyObject;
  readonly #x: Uint8Array;
  readonly #y: Uint8Array;

  constructor() {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const jwk = publicKey.export({ format: "jwk" });
    this.#privateKey = privateKey;
    this.#x = new Uint8Array(Buffer.from(jwk.x!, "base64url"));
    this.#y = new Uint8Array(Buffer.from(jwk.y!, "base64url"));
  }

  /** Answers `navigator.credentials.create` options, as the page at `origin` would get it. */
  register(options: Options, origin: string, lies: Partial<Answering> = {}): Options {
    this.userHandle = (options.user as { id: string }).id;
    const answering: Answering = {
      ...{ origin, rpId: (options.rp as { id: string }).id },
      ...{ challenge: String(options.challenge), type: "webauthn.create", ...lies },
    };
    const cose = new Map<number, number | Uint8Array>([
      [1, 2],
      [3, -7],
      [-1, 1],
      [-2, this.#x],
      [-3, this.#y],
    ]);
    const rawId = Buffer.from(this.id, "base64url");
    const length = Buffer.alloc(2);
    length.writeUInt16BE(rawId.length);
    const credential = Buffer.concat([
      ...[Buffer.alloc(16), length, rawId, isoCBOR.encode(cose as never)],
    ]);
    const authData = new Uint8Array(Buffer.concat([this.#authData(answering, 0x40), credential]));
    const attestation = new Map<string, unknown>([
      ["fmt", "none"],
      ["attStmt", new Map()],
      ["authData", authData],
    ]);
    return this.#credential({
      clientDataJSON: clientData(answering),
      attestationObject: base64url(isoCBOR.encode(attestation as never)),
      transports: ["usb"],
    });
  }

  /** Answers `navigator.credentials.get` options. */
  answer(options: Options, origin: string, lies: Partial<Answering> = {}): Options {
    const answering: Answering = {
      ...{ origin, rpId: String(options.rpId), challenge: String(options.challenge) },
      ...{ type: "webauthn.get", counter: ++this.counter, userHandle: this.userHandle, ...lies },
    };
    const authData = this.#authData(answering, 0);
    const clientDataJSON = clientData(answering);
    const signed = Buffer.concat([authData, sha256(Buffer.from(clientDataJSON, "base64url"))]);
    return this.#credential({
      clientDataJSON,
      authenticatorData: base64url(authData),
      signature: base64url(sign("sha256", signed, this.#privateKey)),
      ...(answering.userHandle === undefined ? {} : { userHandle: answering.userHandle }),
    });
  }

  #authData(answering: Answering, more: number): Buffer {
    const { rpId, userPresent = true, userVerified = true, counter = 0 } = answering;
    const flags = (userPresent ? 0x01 : 0) | (userVerified ? 0x04 : 0) | more;
    const tail = Buffer.alloc(5);
    tail.writeUInt8(flags, 0);
    tail.writeUInt32BE(counter, 1);
    return Buffer.concat([sha256(rpId), tail]);
  }

  #credential(response: Options): Options {
    return {
      ...{ id: this.id, rawId: this.id, type: "public-key", response },
      clientExtensionResults: { credProps: { rk: true } },
    };
  }
}

function clientData({ type, challenge, origin, crossOrigin = false }: Answering): string {
  return base64url(Buffer.from(JSON.stringify({ type, challenge, origin, crossOrigin })));
}
