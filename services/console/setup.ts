/** The console on the live medium: the wizard's state, its effects, and what the lines show of it. */
import type { Key } from "#lib/terminal/keys.ts";
import { drawPage } from "./form-view.ts";
import type { Content } from "./line.ts";
import { carryOut, connectInstaller, followInstaller } from "./wizard/effects.ts";
import {
  initialWizard,
  showsLines,
  transition,
  type WizardEvent,
  type WizardState,
  wizardPage,
} from "./wizard/wizard.ts";

export interface Screen {
  show(content: Content): void;
}

export interface Program {
  onKey(key: Key, path: string): void;
  stop(): Promise<void>;
}

/** Pure: what all lines show. */
export function setupContent(state: WizardState): Content {
  const page = wizardPage(state);
  if (page === undefined || showsLines(state)) {
    const lines = state.view?.lines ?? [{ number: 0, text: "Keelson: the installer is starting." }];
    return { kind: "lines", lines };
  }
  const version = state.view === undefined ? "" : ` ${state.view.version}`;
  return { kind: "page", grid: drawPage(`Keelson${version}`, page, state.form) };
}

export function startSetup(socket: string, screen: Screen): Program {
  const installer = connectInstaller(socket);
  const ended = new AbortController();
  let state = initialWizard();
  const dispatch = (event: WizardEvent): void => {
    const next = transition(state, event);
    state = next.state;
    screen.show(setupContent(state));
    for (const effect of next.effects) {
      void carryOut(installer, effect).then((answer) => {
        if (answer !== undefined && !ended.signal.aborted) dispatch(answer);
      });
    }
  };
  screen.show(setupContent(state));
  const following = followInstaller(
    installer,
    (view) => dispatch({ kind: "view", view }),
    ended.signal,
  );
  return {
    onKey: (key) => dispatch({ kind: "key", key }),
    async stop() {
      ended.abort();
      await Promise.race([following, new Promise((resolve) => setTimeout(resolve, 100))]);
    },
  };
}
