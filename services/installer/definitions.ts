/**
 * systemd-repart's definitions as the installer uses them: the image's own, without contents. The
 * installer writes the contents itself, so that it can show progress, verify what it wrote, and
 * write what makes the disk bootable last.
 */

export interface Definition {
  /** `50-store.conf`. */
  readonly name: string;
  readonly text: string;
}

export interface DefinitionChanges {
  /** Size of a new store; the rest of the disk if undefined. */
  readonly storeBytes: number | undefined;
  /** True if the disk gets no store: an existing one on another disk is used. */
  readonly withoutStore: boolean;
}

const contents = /^\s*(Copy\w+|MakeDirectories)\s*=/;
const storeLabel = /^\s*Label\s*=\s*keelson-store\s*$/m;

/**
 * A partition of fixed size gets weight 0: systemd-repart counts it otherwise when it shares out
 * the disk, and on a small one the store is then left at its least size.
 */
export function installDefinitions(
  definitions: readonly Definition[],
  changes: DefinitionChanges,
): Definition[] {
  return definitions.flatMap(({ name, text }) => {
    const isStore = storeLabel.test(text);
    if (isStore && changes.withoutStore) return [];
    const resized = isStore && changes.storeBytes !== undefined;
    const dropped = resized ? /^\s*(Copy\w+|MakeDirectories|Size\w+|Weight)\s*=/ : contents;
    const lines = text.split("\n").filter((line) => !dropped.test(line));
    while (lines[lines.length - 1]?.trim() === "") lines.pop();
    if (resized) {
      const size = Math.ceil(changes.storeBytes! / 4096) * 4096;
      lines.push(`SizeMinBytes=${size}`, `SizeMaxBytes=${size}`);
    }
    const setting = (key: string) =>
      lines.find((line) => line.startsWith(`${key}=`))?.split("=")[1];
    const least = setting("SizeMinBytes");
    if (least !== undefined && least === setting("SizeMaxBytes")) lines.push("Weight=0");
    return [{ name, text: `${lines.join("\n")}\n` }];
  });
}

export interface NewPartition {
  readonly label: string;
  readonly uuid: string;
  readonly device: string;
}

/** What `systemd-repart --json=short` printed: an array with one object a partition. */
export function readRepartOutput(output: string): NewPartition[] {
  const start = output.indexOf("[");
  const rows = JSON.parse(output.slice(start)) as {
    label?: string;
    uuid: string;
    node?: string;
  }[];
  return rows.map(({ label, uuid, node }) => ({
    label: label ?? "",
    uuid,
    device: node ?? `/dev/disk/by-partuuid/${uuid}`,
  }));
}
