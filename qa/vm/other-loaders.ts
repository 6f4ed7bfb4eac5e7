/**
 * Boot loaders that differ from the present release's in each of their files and start as well: a
 * good release of the scenarios brings them, so that its commit replaces every one.
 */
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { KeelsonError } from "#lib/model/errors.ts";

/** What GRUB says on the serial line once the new grub.cfg is in place. */
export const grubGreeting = (version: string) => `Boot loader of ${version}`;

/** What the commit's message must name. */
export const replacedLoaders = "BOOTX64.EFI, loader.conf, grub.cfg, GRUB";

/** `folder`: the medium's folder `keelson`. */
export function replaceLoaders(folder: string, version: string): void {
  // Firmware reads no further than the PE's sections.
  appendFileSync(join(folder, "esp/EFI/BOOT/BOOTX64.EFI"), `keelson ${version}\0`);
  appendFileSync(join(folder, "esp/loader/loader.conf"), `# ${version}\n`);
  replaceText(
    join(folder, "esp/keelson/grub.cfg"),
    "source ($root)",
    `echo "${grubGreeting(version)}"\nsource ($root)`,
  );
  // What boot.img and diskboot.img print before GRUB itself runs.
  replaceText(join(folder, "grub/boot.img"), "GRUB \0", "Grub \0");
  replaceText(join(folder, "grub/core.img"), "loading\0", "Loading\0");
}

function replaceText(path: string, from: string, to: string): void {
  const before = readFileSync(path, "latin1");
  const after = before.replace(from, () => to);
  if (after === before) throw new KeelsonError("INTERNAL", `There is no '${from}' in ${path}.`);
  writeFileSync(path, after, "latin1");
}
