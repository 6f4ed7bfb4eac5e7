/**
 * Completion: the shell asks `keelson __complete WORDS...`, so that commands, options and the names
 * of volumes and images are always those of today.
 */
import type { Command } from "commander";
import { KeelsonError } from "#lib/model/errors.ts";
import { CommandContext } from "./context.ts";

const scripts: Record<string, string> = {
  bash: `# keelson completion bash > /etc/bash_completion.d/keelson
_keelson() {
  local IFS=$'\\n'
  COMPREPLY=($(keelson __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _keelson keelson`,
  zsh: `#compdef keelson
# keelson completion zsh > "\${fpath[1]}/_keelson"
_keelson() {
  local -a found
  found=("\${(@f)$(keelson __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}
compdef _keelson keelson`,
  fish: `# keelson completion fish > ~/.config/fish/completions/keelson.fish
function __keelson
  set -l words (commandline -opc) (commandline -ct)
  keelson __complete -- $words[2..-1] 2>/dev/null
end
complete -c keelson -f -a '(__keelson)'
complete -c keelson -n '__fish_seen_subcommand_from import' -F`,
};

export function completionScript(shell: string): string {
  const script = scripts[shell];
  if (script !== undefined) return script;
  throw new KeelsonError("INVALID_ARGUMENT", `There is no completion for ${shell}.`, {
    remedy: "Give bash, zsh or fish.",
  });
}

/** Which list an argument's name is completed from. */
const lists: Record<string, string> = {
  volume: "/volumes",
  image: "/images",
  entry: "/boot-entries",
  export: "/exports",
  snapshot: "/snapshots",
  to: "/snapshots",
  schedule: "/snapshot-schedules",
  user: "/users",
  role: "/roles",
  permission: "/permissions",
};

/** Candidates for the last of `words`. */
export async function complete(program: Command, words: readonly string[]): Promise<string[]> {
  const typed = words.at(-1) ?? "";
  let command = program;
  let position = 0;
  let wanted: string | undefined;
  for (const word of words.slice(0, -1)) {
    if (wanted !== undefined) {
      wanted = undefined;
      continue;
    }
    const option = command.options.find(({ long, short }) => word === long || word === short);
    if (option !== undefined) {
      wanted = option.required ? option.name() : undefined;
      continue;
    }
    const inner = command.commands.find(
      (each) => each.name() === word || each.aliases().includes(word),
    );
    if (inner === undefined) position++;
    else {
      command = inner;
      position = 0;
    }
  }
  const candidates =
    wanted !== undefined
      ? await names(lists[wanted])
      : typed.startsWith("-")
        ? [...command.options, ...program.options]
            .flatMap(({ long }) => long ?? [])
            .concat("--help")
        : command.commands.length > 0
          ? command.commands.map((each) => each.name()).filter((name) => !name.startsWith("__"))
          : await names(lists[command.registeredArguments[position]?.name() ?? ""]);
  return [...new Set(candidates)].filter((each) => each.startsWith(typed)).sort();
}

interface Row {
  readonly name?: string;
  readonly id: string;
  readonly volumeName?: string | null;
}

/** No server, no names: completion never fails. */
async function names(path: string | undefined): Promise<string[]> {
  if (path === undefined) return [];
  const context = new CommandContext({});
  try {
    const rows = await context.api.get<(string | Row)[]>(path);
    const nameOf = ({ name, id, volumeName }: Row) =>
      // Snapshots of several volumes may have one name.
      path === "/snapshots" && volumeName ? `${volumeName}@${name}` : (name ?? id);
    return rows.map((row) => (typeof row === "string" ? row : nameOf(row)));
  } catch {
    return [];
  } finally {
    await context.close();
  }
}
