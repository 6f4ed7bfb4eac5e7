/** `node image/keys.ts`: root keys, release keys, rotation, revocation. docs/guide/releases.md. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { makeReleaseKey, makeRoot, readRootFolder, readSigning, revokeKeys } from "./key-folder.ts";

const help = `Usage: node image/keys.ts COMMAND [options]

  root    --root DIR --name NAME              make a root key; keep DIR offline
  release --root DIR --out DIR --name NAME    make a release key, certified by the root
  rotate  --root DIR --out DIR --name NAME    the same, and nodes that have seen a bundle signed
                                              with it refuse all older release keys
  revoke  --root DIR --key ID [--out DIR]     nobody may take that key any more; --out names the
                                              folder of the present release key, which tells nodes
  show    --root DIR | --out DIR              what a folder holds; no secrets

  --passphrase-file FILE       encrypt the new key with it, or read the key with it
                               (KEELSON_KEY_PASSPHRASE does the same)
  --root-passphrase-file FILE  of the root key (KEELSON_ROOT_PASSPHRASE)
  --help                       this text

Give the public part of a root, DIR/root.json, to image/trust/roots.json.`;

/** From a file, without its line end, or from the environment; undefined if neither is there. */
export function readPassphrase(
  file: string | undefined,
  variable = "KEELSON_KEY_PASSPHRASE",
): string | undefined {
  let passphrase = process.env[variable];
  if (file !== undefined) {
    try {
      passphrase = readFileSync(file, "utf8").replace(/\r?\n$/, "");
    } catch (cause) {
      throw new KeelsonError("NOT_FOUND", `${file} can't be read: ${(cause as Error).message}.`, {
        object: file,
        cause,
      });
    }
  }
  if (passphrase === undefined) return undefined;
  if (passphrase.length < 8) {
    throw new KeelsonError("INVALID_ARGUMENT", "A passphrase has at least 8 characters.");
  }
  return passphrase;
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        root: { type: "string" },
        out: { type: "string" },
        name: { type: "string" },
        key: { type: "string", multiple: true },
        "passphrase-file": { type: "string" },
        "root-passphrase-file": { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
  } catch (cause) {
    throw new KeelsonError("INVALID_ARGUMENT", `${(cause as Error).message}.`, {
      remedy: "See --help.",
      cause,
    });
  }
}

type Values = ReturnType<typeof readArguments>["values"];

function required(values: Values, name: "root" | "out" | "name"): string {
  const value = values[name];
  if (value !== undefined && value !== "") return name === "name" ? value : resolve(value);
  throw new KeelsonError("INVALID_ARGUMENT", `--${name} is missing.`, { remedy: "See --help." });
}

function secrets(values: Values) {
  const passphrase = readPassphrase(values["passphrase-file"]);
  const rootPassphrase = readPassphrase(values["root-passphrase-file"], "KEELSON_ROOT_PASSPHRASE");
  return {
    ...(passphrase === undefined ? {} : { passphrase }),
    ...(rootPassphrase === undefined ? {} : { rootPassphrase }),
  };
}

const commands: Record<string, (values: Values) => void> = {
  root(values) {
    const folder = required(values, "root");
    const { rootPassphrase, passphrase = rootPassphrase } = secrets(values);
    const root = makeRoot(folder, {
      name: required(values, "name"),
      ...(passphrase === undefined ? {} : { passphrase }),
    });
    console.log(`Root key ${root.keyId} (${root.name}) in ${folder}.`);
    if (passphrase === undefined) console.log("It has no passphrase: whoever has the file has it.");
    console.log(`Keep that folder offline; give ${join(folder, "root.json")} to the image.`);
  },
  release: (values) => certify(values, false),
  rotate: (values) => certify(values, true),
  revoke(values) {
    const keyIds = values.key ?? [];
    if (keyIds.length === 0) {
      throw new KeelsonError("INVALID_ARGUMENT", "--key is missing.", { remedy: "See --help." });
    }
    const { rootPassphrase } = secrets(values);
    revokeKeys(required(values, "root"), keyIds, {
      refresh: values.out === undefined ? [] : [resolve(values.out)],
      ...(rootPassphrase === undefined ? {} : { rootPassphrase }),
    });
    console.log(`Revoked ${keyIds.join(", ")}.`);
    console.log(
      "Nodes learn it from the next bundle; add the id to image/trust/roots.json, for new ones.",
    );
  },
  show(values) {
    if (values.root !== undefined) {
      showRoot(resolve(values.root));
      return;
    }
    const { certificate, revocations } = readSigning(required(values, "out"));
    const { keyId, name, epoch, serial, rootKeyId } = certificate.body;
    console.log(`release key ${keyId} (${name}), epoch ${epoch}, serial ${serial}`);
    console.log(`certified by root ${rootKeyId}`);
    const revoked = revocations.flatMap(({ body }) => body.keyIds);
    console.log(`tells nodes of ${revoked.length} revoked keys${listed(revoked)}`);
  },
};

function showRoot(folder: string): void {
  const { root, certificates, revocations } = readRootFolder(folder);
  const kind = root.development ? ", for development only" : "";
  console.log(`root key ${root.keyId} (${root.name})${kind}`);
  const revoked = new Set(revocations.flatMap(({ body }) => body.keyIds));
  const present = Math.max(0, ...certificates.map(({ body }) => body.epoch));
  for (const { body } of certificates) {
    const state = revoked.has(body.keyId)
      ? "revoked"
      : body.epoch < present
        ? "replaced"
        : "in use";
    console.log(
      `  release key ${body.keyId} (${body.name}), epoch ${body.epoch}, serial ${body.serial}: ${state}`,
    );
  }
}

function listed(ids: readonly string[]): string {
  return ids.length === 0 ? "" : `: ${ids.join(", ")}`;
}

function certify(values: Values, rotate: boolean): void {
  const out = required(values, "out");
  const { body } = makeReleaseKey(required(values, "root"), out, {
    ...{ name: required(values, "name"), rotate },
    ...secrets(values),
  });
  console.log(`Release key ${body.keyId} (${body.name}), epoch ${body.epoch}, in ${out}.`);
  if (rotate) {
    console.log("Nodes that take a bundle signed with it refuse all older release keys.");
  }
  console.log(`Sign with it: npm run image -- --release --bundle --key ${out}`);
}

function main(): void {
  const { values, positionals } = readArguments();
  if (values.help) {
    console.log(help);
    return;
  }
  const [name = "", ...rest] = positionals;
  if (!Object.hasOwn(commands, name) || rest.length > 0) {
    throw new KeelsonError("INVALID_ARGUMENT", `'${positionals.join(" ")}' is no command.`, {
      remedy: "See --help.",
    });
  }
  commands[name](values);
}

if (import.meta.main) {
  try {
    main();
  } catch (error) {
    console.error(`keys: ${explainError(error)}`);
    if (!isKeelsonError(error)) console.error(error);
    process.exit(1);
  }
}
