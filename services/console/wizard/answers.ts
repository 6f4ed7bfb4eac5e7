/** What is typed into the wizard, as the answer file that an unattended install reads. Pure. */
import { type AnswersInput, checkAnswers } from "#lib/answer-file/schema.ts";
import type { DiskView, InstallerView } from "#services/installer/schema.ts";
import { initialNetwork, networkOf, sentence, type Values, wordsOf } from "../network-form.ts";

export const initialValues: Values = {
  ...initialNetwork,
  "node.name": "keelson-1",
  timeZone: "UTC",
  ntp: "",
  disk: "",
  pools: "keep",
  poolName: "",
  eraseOther: "",
  password: "",
  passwordAgain: "",
};

export function chosenDisk(values: Values, view: InstallerView): DiskView | undefined {
  return view.disks.find(({ path }) => path === values.disk);
}

/** A name that fits this disk on another day too, where it has one. */
function diskSelector(disk: DiskView, view: InstallerView): AnswersInput["disk"] {
  const sameSerial = view.disks.filter(({ serial }) => serial === disk.serial);
  return disk.serial !== "" && sameSerial.length === 1
    ? { serial: disk.serial }
    : { path: disk.path };
}

/** Where no password was set yet a hash of none stands, so that the other fields can be checked. */
export function answersOf(
  values: Values,
  view: InstallerView,
  passwordHash: string | undefined,
): unknown {
  const disk = chosenDisk(values, view);
  const pools = disk?.contents.flatMap(({ pool }) => pool ?? []) ?? [];
  const keeps = values.pools === "keep";
  const ntp = wordsOf(values.ntp);
  return {
    version: 1,
    node: { name: values["node.name"]?.trim() },
    disk: disk === undefined ? { path: values.disk || "/dev/none" } : diskSelector(disk, view),
    ...(pools.length > 0 && keeps ? { store: { pool: pools[0].id } } : {}),
    ...(pools.length > 0 && !keeps ? { erasePools: pools.map(({ id }) => id) } : {}),
    network: networkOf(values),
    timeZone: values.timeZone?.trim(),
    ...(ntp.length > 0 ? { ntp } : {}),
    admin: { passwordHash: passwordHash ?? placeholderHash },
    after: "reboot",
  };
}

const placeholderHash = `$6$x$${"x".repeat(86)}`;

/** What is wrong with the answers, by field id; the first message of each. */
export function answerProblems(
  values: Values,
  view: InstallerView,
  passwordHash: string | undefined,
): Record<string, string> {
  const result = checkAnswers(answersOf(values, view, passwordHash));
  if (result.ok) return {};
  const problems: Record<string, string> = {};
  for (const { path, message } of result.problems) {
    const id = path.replace(/\.?\[?\d+\]?.*$/, "");
    problems[id] ??= sentence(message);
  }
  return problems;
}

/** The answer file's text, as it is saved, shown and installed from. */
export function answersText(
  values: Values,
  view: InstallerView,
  passwordHash: string | undefined,
): string {
  const head = `// Written by the console of Keelson ${view.version}.`;
  return `${head}\n${JSON.stringify(answersOf(values, view, passwordHash), null, 2)}\n`;
}
