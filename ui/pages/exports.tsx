import { useState } from "preact/hooks";
import { parseIqn } from "#lib/model/ids.ts";
import { formatSize } from "#lib/model/size.ts";
import type { Export, ExportCreated } from "../../services/api/schema.ts";
import { request } from "../client.ts";
import { Confirm, Dialog } from "../components/dialog.tsx";
import { Field, Select, useChoice } from "../components/field.tsx";
import { Icon } from "../components/icon.tsx";
import { Loading } from "../components/loading.tsx";
import { Badge, Empty, PageHead, RowAction } from "../components/parts.tsx";
import { type Column, Table } from "../components/table.tsx";
import { say } from "../components/toast.tsx";
import { exports, volumes } from "../live/state.ts";
import { may } from "../permission.ts";
import { useAddressAction } from "../router.ts";
import { ExportSecret } from "./storage/export-secret.tsx";

type Asked =
  | { readonly what: "create" }
  | { readonly what: "secret"; readonly created: ExportCreated }
  | { readonly what: "access" | "delete"; readonly item: Export };

export function ExportsPage() {
  const [asked, setAsked] = useState<Asked>();
  const close = () => setAsked(undefined);
  useAddressAction("new", () => setAsked({ what: "create" }));
  const create = may("storage:write") ? (
    <button type="button" class="button primary" onClick={() => setAsked({ what: "create" })}>
      <Icon name="plus" />
      Export a volume
    </button>
  ) : undefined;
  return (
    <>
      <PageHead title="iSCSI exports" actions={create}>
        Volumes that named initiators may use. Disks of boot clients are exported by themselves and
        don’t appear here.
      </PageHead>
      {exports.value === undefined ? (
        <Loading resource="exports" />
      ) : (
        <Table
          label="Exports"
          noun={["export", "exports"]}
          rows={exports.value}
          columns={columnsFor(setAsked)}
          rowKey={(item) => item.id}
          text={(item) =>
            `${item.name} ${item.targetIqn} ${item.volumeName} ${item.initiators.join(" ")}`
          }
          empty={
            <Empty icon="link" title="No exports yet" actions={create}>
              An export lets an initiator that you name log in to one volume: a hypervisor, a
              server, another storage system.
            </Empty>
          }
        />
      )}
      {asked?.what === "create" ? (
        <CreateDialog
          // What follows a creation is the secret: closing this must not close that.
          onClose={() => setAsked((now) => (now?.what === "create" ? undefined : now))}
          onCreated={(created) => setAsked({ what: "secret", created })}
        />
      ) : null}
      {asked?.what === "secret" ? <ExportSecret created={asked.created} onClose={close} /> : null}
      {asked?.what === "access" ? <AccessDialog item={asked.item} onClose={close} /> : null}
      {asked?.what === "delete" ? <DeleteDialog item={asked.item} onClose={close} /> : null}
    </>
  );
}

function columnsFor(ask: (asked: Asked) => void): Column<Export>[] {
  return [
    {
      title: "Name",
      sort: (item) => item.name,
      cell: (item) => (
        <>
          <span class="name">{item.name}</span>
          <span class="under mono" title={item.targetIqn}>
            {item.targetIqn}
          </span>
        </>
      ),
    },
    {
      title: "Volume",
      width: "20%",
      from: "wide",
      sort: (item) => item.volumeName ?? "",
      cell: (item) => <span class="clip">{item.volumeName ?? "Volume is gone"}</span>,
    },
    {
      title: "Who may log in",
      width: "24%",
      from: "wide",
      cell: (item) => (
        <>
          <span class="name">
            {item.openToLoopback
              ? "Anyone on this machine"
              : item.initiators.length === 0
                ? "Nobody yet"
                : item.initiators[0]}
          </span>
          <span class="under">
            {[
              item.initiators.length > 1 ? `and ${item.initiators.length - 1} more` : "",
              item.chapUser === null ? "no CHAP" : `CHAP user ${item.chapUser}`,
              item.readOnly ? "read-only" : "",
            ]
              .filter(Boolean)
              .join(" · ")}
          </span>
        </>
      ),
    },
    {
      title: "State",
      width: "150px",
      sort: (item) => item.state,
      cell: (item) => <ExportState item={item} />,
    },
    {
      title: "Actions",
      permission: "storage:write",
      width: "104px",
      end: true,
      cell: (item) => (
        <div class="row-actions">
          <RowAction
            icon="edit"
            label={`Change who may use ${item.name}`}
            onClick={() => ask({ what: "access", item })}
          />
          <RowAction
            icon="trash"
            danger
            label={`Delete export ${item.name}`}
            onClick={() => ask({ what: "delete", item })}
          />
        </div>
      ),
    },
  ];
}

function ExportState({ item }: { item: Export }) {
  if (item.state === "failed") {
    return (
      <span title={item.message ?? ""}>
        <Badge tone="bad">Not served</Badge>
      </span>
    );
  }
  if (item.state === "pending") return <Badge tone="warn">Being set up</Badge>;
  const count = item.sessionCount ?? 0;
  return count === 0 ? (
    <Badge tone="idle">Ready</Badge>
  ) : (
    <Badge tone="good">
      {count} {count === 1 ? "session" : "sessions"}
    </Badge>
  );
}

function readInitiators(text: string): { names: string[]; wrong: string | undefined } {
  const names = text.split(/[\s,]+/).filter(Boolean);
  const bad = names.find((name) => parseIqn(name) === undefined);
  return {
    names,
    wrong:
      bad === undefined
        ? undefined
        : `“${bad}” is not an iSCSI name like iqn.1993-08.org.debian:01:abc.`,
  };
}

interface CreateProps {
  onClose(): void;
  onCreated(created: ExportCreated): void;
}

function CreateDialog({ onClose, onCreated }: CreateProps) {
  const options = (volumes.value ?? [])
    .filter((volume) => volume.kind === "plain" && volume.state === "ready")
    .map((volume) => ({
      value: volume.id,
      label: `${volume.name}, ${formatSize(volume.sizeBytes)}`,
    }));
  const [volumeId, setVolumeId] = useChoice(options);
  const [text, setText] = useState("");
  const [chap, setChap] = useState("generate");
  const { names, wrong } = readInitiators(text);
  return (
    <Dialog
      title="Export a volume"
      verb="Export"
      disabled={volumeId === "" || wrong !== undefined}
      onClose={onClose}
      onSubmit={async (form) => {
        const answer = await request<ExportCreated>("POST", "/exports", {
          name: String(form.get("name")).trim(),
          volumeId,
          initiators: names,
          chap: { kind: chap },
        });
        if (answer.chapSecret === null) say(`${answer.name} is exported.`);
        else onCreated(answer);
      }}
    >
      <Field label="Name" name="name" placeholder="vm-host-data" />
      {options.length === 0 ? (
        <p class="soft">
          There is no volume to export: <a href="#/volumes">create one first</a>.
        </p>
      ) : (
        <Select
          label="Volume"
          name="volume"
          value={volumeId}
          onChange={setVolumeId}
          options={options}
        />
      )}
      <Field
        label="Initiators that may log in"
        name="initiators"
        placeholder="iqn.1993-08.org.debian:01:4f2c"
        hint="Their iSCSI names, parted by spaces. Nobody else reaches the volume."
        value={text}
        onInput={setText}
        wrong={wrong}
      />
      <Select
        label="CHAP"
        name="chap"
        value={chap}
        onChange={setChap}
        options={[
          { value: "generate", label: "Make a user and a secret" },
          { value: "none", label: "None: the name alone is enough" },
        ]}
      />
    </Dialog>
  );
}

function AccessDialog({ item, onClose }: { item: Export; onClose(): void }) {
  const [text, setText] = useState(item.initiators.join(" "));
  const { names, wrong } = readInitiators(text);
  return (
    <Dialog
      title={`Who may use ${item.name}`}
      verb="Save"
      disabled={wrong !== undefined}
      onClose={onClose}
      onSubmit={async () => {
        await request<Export>("PATCH", `/exports/${item.id}`, { initiators: names });
        say(`Access to ${item.name} is changed.`);
      }}
    >
      <Field
        label="Initiators that may log in"
        name="initiators"
        hint="Their iSCSI names, parted by spaces. Who is taken out loses its session."
        value={text}
        onInput={setText}
        wrong={wrong}
      />
    </Dialog>
  );
}

function DeleteDialog({ item, onClose }: { item: Export; onClose(): void }) {
  const open = item.sessionCount ?? 0;
  return (
    <Confirm
      title={`Delete export ${item.name}?`}
      verb="Delete export"
      losses={[
        "Its access list and its CHAP secret.",
        open === 0
          ? "No initiator is logged in now."
          : `${open} open ${open === 1 ? "session ends" : "sessions end"} at once.`,
      ]}
      onClose={onClose}
      onConfirm={async () => {
        await request("DELETE", `/exports/${item.id}`);
        say(`Export ${item.name} is deleted.`);
      }}
    >
      <p class="soft">The volume {item.volumeName} and what is on it stay.</p>
    </Confirm>
  );
}
