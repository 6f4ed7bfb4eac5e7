/**
 * The image's users and groups, from units/sysusers.d. They are written before the first package
 * is configured: a number that the order of packages chose would change from image to image, and
 * the files below /var would change hands.
 */
import { KeelsonError } from "#lib/model/errors.ts";

export interface Account {
  readonly name: string;
  readonly id: number;
  /** False: only a group. */
  readonly user: boolean;
  readonly comment: string;
  readonly home: string;
}

export interface Accounts {
  readonly accounts: readonly Account[];
  /** group -> users */
  readonly members: ReadonlyMap<string, readonly string[]>;
}

/** The subset of sysusers.d(5) in use: `u` and `g` with a number, `m`. Else FORMAT_UNKNOWN. */
export function parseSysusers(text: string): Accounts {
  const accounts: Account[] = [];
  const members = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const fields = (line.match(/"[^"]*"|\S+/g) ?? []).map((field) => field.replaceAll('"', ""));
    const [type, name, argument, comment = "", home = "-"] = fields;
    const numbered = /^[0-9]+$/.test(argument ?? "");
    if (type === "m" && argument !== undefined) {
      members.set(argument, [...(members.get(argument) ?? []), name]);
    } else if ((type === "u" || type === "g") && numbered) {
      accounts.push({
        name,
        id: Number(argument),
        user: type === "u",
        comment,
        home: home === "-" ? "/" : home,
      });
    } else {
      throw new KeelsonError("FORMAT_UNKNOWN", `sysusers line not understood: ${line}`, {
        remedy: "Users and groups of the image have a fixed number.",
      });
    }
  }
  return { accounts, members };
}

/** Lines to append to /etc/passwd, /etc/group, /etc/shadow and /etc/gshadow. */
export function accountFiles({ accounts, members }: Accounts): Record<string, string> {
  const users = accounts.filter(({ user }) => user);
  const lines = (rows: string[]) => rows.map((row) => `${row}\n`).join("");
  const list = (group: string) => (members.get(group) ?? []).join(",");
  return {
    "etc/passwd": lines(
      users.map(
        ({ name, id, comment, home }) =>
          `${name}:x:${id}:${id}:${comment}:${home}:/usr/sbin/nologin`,
      ),
    ),
    "etc/group": lines(accounts.map(({ name, id }) => `${name}:x:${id}:${list(name)}`)),
    // `!*`: no password, and none can be set by unlocking.
    "etc/shadow": lines(users.map(({ name }) => `${name}:!*:1::::::`)),
    "etc/gshadow": lines(accounts.map(({ name }) => `${name}:!*::${list(name)}`)),
  };
}
