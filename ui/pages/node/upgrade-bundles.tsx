/** Releases that are offered: notes, whether they can be installed, upload, and the button. */
import { useRef, useState } from "preact/hooks";
import { formatSize } from "#lib/model/size.ts";
import type {
  OfferedBundle,
  UpgradePlan,
  UpgradeState,
} from "../../../services/api/upgrade-schema.ts";
import { asFailure, type Failure, request, sendFile } from "../../client.ts";
import { Dialog } from "../../components/dialog.tsx";
import { Fetching } from "../../components/fetching.tsx";
import { Icon } from "../../components/icon.tsx";
import { Badge, Meter, Panel, RowAction, type Tone, Trouble } from "../../components/parts.tsx";
import { complain, say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { t } from "../../words/words.ts";
import { StepList } from "./upgrade-plan.tsx";

const tones: Record<OfferedBundle["state"], Tone> = {
  here: "good",
  remote: "idle",
  fetching: "accent",
  refused: "bad",
};

interface OfferedProps {
  readonly state: UpgradeState;
  /** A plan runs: nothing else begins. */
  readonly busy: boolean;
  onChanged(): Promise<void>;
}

export function OfferedPanel({ state, busy, onChanged }: OfferedProps) {
  const [starting, setStarting] = useState<OfferedBundle>();
  const mayWrite = may("upgrade:write");
  return (
    <Panel title={t("upgrade.offered")} span={7} flush>
      {state.bundles.length === 0 ? (
        <p class="calm">{t("upgrade.none")}</p>
      ) : (
        <ul class="bundles">
          {state.bundles.map((bundle) => (
            <Bundle
              key={bundle.id}
              bundle={bundle}
              busy={busy}
              mayWrite={mayWrite}
              onStart={() => setStarting(bundle)}
              onChanged={onChanged}
            />
          ))}
        </ul>
      )}
      {mayWrite ? <Upload limitBytes={state.spool.limitBytes} onChanged={onChanged} /> : null}
      {starting === undefined ? null : (
        <StartDialog
          bundle={starting}
          presentVersion={state.nodes[0]?.running.version ?? t("time.unknown")}
          onClose={() => setStarting(undefined)}
          onChanged={onChanged}
        />
      )}
    </Panel>
  );
}

interface BundleProps {
  readonly bundle: OfferedBundle;
  readonly busy: boolean;
  readonly mayWrite: boolean;
  onStart(): void;
  onChanged(): Promise<void>;
}

function Bundle({ bundle, busy, mayWrite, onStart, onChanged }: BundleProps) {
  const version = bundle.version ?? t("upgrade.unknownVersion");
  const path = `/upgrade/bundles/${encodeURIComponent(bundle.id)}`;
  const source = t(`upgrade.source.${bundle.source.kind}`);
  const act = (method: string, to: string, said?: string) => {
    request(method, to)
      .then(() => said && say(said))
      .then(onChanged)
      .catch(complain);
  };
  return (
    <li>
      <div class="bundle-head">
        <span class="grow">
          <span class="name">{version}</span>
          <span class="under wrap">
            {formatSize(bundle.sizeBytes)} ·{" "}
            {bundle.source.where === ""
              ? source
              : t("upgrade.sourceWhere", { source, where: bundle.source.where })}
          </span>
        </span>
        {bundle.developmentKey ? <Badge tone="warn">{t("upgrade.developmentKey")}</Badge> : null}
        <Badge tone={tones[bundle.state]}>{t(`upgrade.state.${bundle.state}`)}</Badge>
        {mayWrite ? (
          <RowAction
            icon="trash"
            danger
            label={t("upgrade.remove", { version })}
            disabled={busy}
            onClick={() => act("DELETE", path, t("upgrade.removed", { version }))}
          />
        ) : null}
      </div>
      {bundle.state === "fetching" ? (
        <Meter
          thin
          share={bundle.sizeBytes === 0 ? undefined : bundle.receivedBytes / bundle.sizeBytes}
          label={t("upgrade.fetch", { version })}
        />
      ) : null}
      {bundle.message === null ? null : <p class="bad-text">{bundle.message}</p>}
      {bundle.notes.trim() === "" ? null : (
        <details>
          <summary>{t("upgrade.notes")}</summary>
          <p class="notes">{bundle.notes.trim()}</p>
        </details>
      )}
      {bundle.startable.ok || bundle.state === "refused" ? null : (
        <p class="soft">{t("upgrade.whyNot", { why: bundle.startable.why })}</p>
      )}
      {mayWrite ? (
        <div class="actions">
          {bundle.state === "remote" ? (
            <button type="button" class="button" onClick={() => act("POST", `${path}/fetch`)}>
              <Icon name="download" />
              {t("upgrade.fetch", { version })}
            </button>
          ) : null}
          {bundle.startable.ok ? (
            <button type="button" class="button primary" disabled={busy} onClick={onStart}>
              <Icon name="upgrade" />
              {t("upgrade.to", { version })}
            </button>
          ) : null}
        </div>
      ) : null}
    </li>
  );
}

interface StartProps {
  readonly bundle: OfferedBundle;
  readonly presentVersion: string;
  onClose(): void;
  onChanged(): Promise<void>;
}

/** What will happen and for how long, before it happens. */
function StartDialog({ bundle, presentVersion, onClose, onChanged }: StartProps) {
  const plan = useFetched<UpgradePlan>(`/upgrade/bundles/${encodeURIComponent(bundle.id)}/plan`);
  const version = bundle.version ?? "";
  return (
    <Dialog
      title={t("upgrade.confirmTitle", { version })}
      verb={t("upgrade.start")}
      disabled={plan.value === undefined}
      onClose={onClose}
      onSubmit={async () => {
        await request("POST", "/upgrade/start", { bundleId: bundle.id });
        say(t("upgrade.started", { version }));
        await onChanged();
      }}
    >
      {plan.value === undefined ? (
        <Fetching of={plan} />
      ) : (
        <>
          <p>
            {plan.value.interruptionSeconds === 0
              ? t("upgrade.noInterruption")
              : t("upgrade.interruption", { count: plan.value.interruptionSeconds })}{" "}
            {t("upgrade.wayBack", { version: presentVersion })}
          </p>
          <section aria-label={t("upgrade.willHappen")}>
            <h3>{t("upgrade.willHappen")}</h3>
            <StepList steps={plan.value.steps} />
          </section>
        </>
      )}
    </Dialog>
  );
}

interface UploadProps {
  readonly limitBytes: number;
  onChanged(): Promise<void>;
}

interface Sending {
  readonly name: string;
  readonly sizeBytes: number;
  readonly sentBytes: number;
}

function Upload({ limitBytes, onChanged }: UploadProps) {
  const input = useRef<HTMLInputElement>(null);
  const stop = useRef<AbortController | undefined>(undefined);
  const [sending, setSending] = useState<Sending>();
  const [failure, setFailure] = useState<Failure>();
  const limit = formatSize(limitBytes);
  const send = async (file: File) => {
    const { name, size: sizeBytes } = file;
    setFailure(undefined);
    if (sizeBytes > limitBytes) {
      const title = t("upgrade.tooLarge", { name, limit });
      setFailure({ title, detail: t("upgrade.tooLargeDetail"), code: undefined });
      return;
    }
    stop.current = new AbortController();
    setSending({ name, sizeBytes, sentBytes: 0 });
    try {
      const path = `/upgrade/bundles?${new URLSearchParams({ name })}`;
      await sendFile("POST", path, file, stop.current.signal, (sentBytes) =>
        setSending({ name, sizeBytes, sentBytes }),
      );
      say(t("upgrade.uploaded", { name }));
    } catch (error) {
      if (!stop.current.signal.aborted) setFailure(asFailure(error));
    }
    setSending(undefined);
    await onChanged();
  };
  return (
    <div class="panel-foot">
      {failure === undefined ? null : <Trouble failure={failure} />}
      <input
        ref={input}
        class="unseen"
        type="file"
        accept=".kbundle"
        tabIndex={-1}
        aria-label={t("upgrade.upload")}
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          if (file !== undefined) void send(file);
        }}
      />
      {sending === undefined ? (
        <div class="actions">
          <button type="button" class="button" onClick={() => input.current?.click()}>
            <Icon name="upload" />
            {t("upgrade.upload")}
          </button>
          <span class="soft small middle">{t("upgrade.uploadHint", { limit })}</span>
        </div>
      ) : (
        <SendingLine sending={sending} onCancel={() => stop.current?.abort()} />
      )}
    </div>
  );
}

function SendingLine({ sending, onCancel }: { sending: Sending; onCancel(): void }) {
  const { name, sizeBytes, sentBytes } = sending;
  const sent = sentBytes >= sizeBytes;
  return (
    <div class="sending">
      <div class="bundle-head">
        <span class="grow">
          <span class="name">{name}</span>
          <span class="under number">
            {sent
              ? t("upgrade.checking")
              : t("upgrade.sent", { sent: formatSize(sentBytes), size: formatSize(sizeBytes) })}
          </span>
        </span>
        <button type="button" class="button small" onClick={onCancel}>
          {t("upgrade.cancelUpload")}
        </button>
      </div>
      <Meter
        share={sent ? undefined : sentBytes / sizeBytes}
        label={t("upgrade.uploading", { name })}
      />
    </div>
  );
}
