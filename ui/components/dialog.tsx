/** A question above the page. The browser's own <dialog> keeps focus inside and closes on Escape. */
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { asFailure, type Failure } from "../client.ts";
import { Icon } from "./icon.tsx";
import { Trouble } from "./parts.tsx";

interface DialogProps {
  readonly title: string;
  /** Label of the button that does it: a verb. */
  readonly verb: string;
  readonly danger?: boolean;
  readonly disabled?: boolean;
  /** No way out but the verb: what is shown is shown once. */
  readonly onlyVerb?: boolean;
  /** Escape closes it even so: nothing would be lost. */
  readonly closable?: boolean;
  readonly children?: ComponentChildren;
  onClose(): void;
  /** Resolves when done (the dialog closes); a rejection is shown and the dialog stays. */
  onSubmit(form: FormData): Promise<void>;
}

export function Dialog(props: DialogProps) {
  const {
    title,
    verb,
    danger = false,
    disabled = false,
    onlyVerb = false,
    closable = !onlyVerb,
    children,
    onClose,
    onSubmit,
  } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure>();
  // In the frame that draws it: what is typed right after the key press goes into the dialog.
  useLayoutEffect(() => {
    const element = dialog.current!;
    const before = document.activeElement;
    element.showModal();
    element.querySelector<HTMLElement>("[data-first], input:not([type=hidden]), select")?.focus();
    return () => {
      // Still modal when it goes: everything else would refuse the focus.
      element.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy || disabled) return;
    setBusy(true);
    setFailure(undefined);
    try {
      await onSubmit(new FormData(event.currentTarget as HTMLFormElement));
      onClose();
    } catch (error) {
      setFailure(asFailure(error));
      setBusy(false);
    }
  };
  return (
    <dialog
      ref={dialog}
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        if (closable) onClose();
      }}
    >
      <form onSubmit={submit} noValidate>
        <h2 id={titleId}>{title}</h2>
        {children}
        {failure === undefined ? null : <Trouble failure={failure} />}
        <div class="actions">
          {onlyVerb ? null : (
            <button type="button" class="button" onClick={onClose}>
              Cancel
            </button>
          )}
          <button
            type="submit"
            class={`button ${danger ? "danger" : "primary"}`}
            disabled={disabled || busy}
          >
            {busy ? "Working…" : verb}
          </button>
        </div>
      </form>
    </dialog>
  );
}

interface ConfirmProps {
  readonly title: string;
  readonly verb: string;
  /** What is gone afterwards, one line each. */
  readonly losses: readonly string[];
  /** Asked to be typed when it can't be undone and matters. */
  readonly typed?: string;
  readonly children?: ComponentChildren;
  onClose(): void;
  onConfirm(form: FormData): Promise<void>;
}

/** A deletion names what is lost before it happens. */
export function Confirm(props: ConfirmProps) {
  const { title, verb, losses, typed, children, onClose, onConfirm } = props;
  const [text, setText] = useState("");
  const inputId = useId();
  return (
    <Dialog
      title={title}
      verb={verb}
      danger
      disabled={typed !== undefined && text.trim() !== typed}
      onClose={onClose}
      onSubmit={onConfirm}
    >
      {children}
      <ul class="losses" aria-label="What is lost">
        {losses.map((loss) => (
          <li key={loss}>
            <Icon name="condition" />
            <span>{loss}</span>
          </li>
        ))}
      </ul>
      {typed === undefined ? null : (
        <div class="field">
          <label for={inputId}>
            Type <code>{typed}</code> to confirm
          </label>
          <input
            id={inputId}
            class="input"
            autocomplete="off"
            spellcheck={false}
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </div>
      )}
    </Dialog>
  );
}
