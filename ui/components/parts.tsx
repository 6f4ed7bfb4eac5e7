/** Small parts that every page uses. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Failure } from "../client.ts";
import { Icon, type IconName } from "./icon.tsx";
import { useRowTabIndex } from "./row.tsx";

export type Tone = "good" | "warn" | "bad" | "accent" | "idle";

export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

interface MeterProps {
  /** 0 .. 1; undefined while it isn't known how far something is. */
  readonly share: number | undefined;
  readonly label: string;
  readonly tone?: Tone;
  readonly thin?: boolean;
}

export function Meter({ share, label, tone = "accent", thin = false }: MeterProps) {
  const percent = share === undefined ? undefined : Math.round(Math.min(1, share) * 1000) / 10;
  return (
    <div
      class={`meter ${tone}${thin ? " thin" : ""}${percent === undefined ? " unknown" : ""}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(percent === undefined ? {} : { "aria-valuenow": percent })}
    >
      {percent === 0 ? null : <div style={{ width: `${percent ?? 35}%` }} />}
    </div>
  );
}

interface PageHeadProps {
  readonly title: string;
  readonly children?: ComponentChildren;
  readonly actions?: ComponentChildren;
}

/** Takes the focus when a page opens, so that keyboard and screen reader start at its title. */
export function PageHead({ title, children, actions }: PageHeadProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Keelson`;
    heading.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [title]);
  return (
    <div class="page-head">
      <div>
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {children === undefined ? null : <p>{children}</p>}
      </div>
      {actions === undefined ? null : <div class="actions">{actions}</div>}
    </div>
  );
}

interface PanelProps {
  readonly title: string;
  readonly span: 3 | 4 | 5 | 6 | 7 | 8 | 12;
  readonly aside?: ComponentChildren;
  readonly flush?: boolean;
  readonly children: ComponentChildren;
}

export function Panel({ title, span, aside, flush = false, children }: PanelProps) {
  return (
    <section class={`panel span-${span}`} aria-label={title}>
      <header>
        <h2>{title}</h2>
        {aside}
      </header>
      {flush ? children : <div class="body">{children}</div>}
    </section>
  );
}

interface EmptyProps {
  readonly icon: IconName;
  readonly title: string;
  readonly children: ComponentChildren;
  readonly actions?: ComponentChildren;
}

/** Nothing here yet: says what belongs here and how to begin. */
export function Empty({ icon, title, children, actions }: EmptyProps) {
  return (
    <div class="empty">
      <span class="badge-icon">
        <Icon name={icon} />
      </span>
      <h2>{title}</h2>
      <p>{children}</p>
      {actions === undefined ? null : <div class="actions">{actions}</div>}
    </div>
  );
}

/** What went wrong, with what, and what to do: the words of the problem document. */
export function Trouble({ failure }: { failure: Failure }) {
  return (
    <div class="trouble" role="alert">
      <Icon name="wrong" />
      <div>
        <b>{failure.title}</b>
        {failure.detail === undefined ? null : <p>{failure.detail}</p>}
      </div>
    </div>
  );
}

interface ActionProps {
  readonly icon: IconName;
  /** Says what it does and to what: it is the accessible name. */
  readonly label: string;
  readonly danger?: boolean;
  readonly disabled?: boolean;
  onClick(): void;
}

export function RowAction({ icon, label, danger = false, disabled = false, onClick }: ActionProps) {
  return (
    <button
      type="button"
      class={`button icon-only${danger ? " danger" : ""}`}
      title={label}
      aria-label={label}
      tabIndex={useRowTabIndex()}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}
