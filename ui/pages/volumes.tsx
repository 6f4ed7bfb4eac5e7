import { useState } from "preact/hooks";
import { formatSize } from "#lib/model/size.ts";
import type { Volume } from "../../services/api/schema.ts";
import { request } from "../client.ts";
import { Confirm, Dialog } from "../components/dialog.tsx";
import { Field, Select } from "../components/field.tsx";
import { Icon } from "../components/icon.tsx";
import { Loading } from "../components/loading.tsx";
import { Badge, Empty, Meter, PageHead, RowAction } from "../components/parts.tsx";
import { type Column, Table } from "../components/table.tsx";
import { Age } from "../components/time.tsx";
import { say } from "../components/toast.tsx";
import { readSize } from "../entry.ts";
import { images, store, volumes } from "../live/state.ts";
import { may } from "../permission.ts";
import { go, useAddressAction } from "../router.ts";

type Asked =
  | { readonly what: "create" }
  | { readonly what: "grow" | "delete"; readonly volume: Volume };

const kinds = { plain: "Volume", image: "Image", client: "Client disk" } as const;

export function VolumesPage() {
  const [asked, setAsked] = useState<Asked>();
  const close = () => setAsked(undefined);
  useAddressAction("new", () => setAsked({ what: "create" }));
  const create = may("storage:write") ? (
    <button type="button" class="button primary" onClick={() => setAsked({ what: "create" })}>
      <Icon name="plus" />
      Create volume
    </button>
  ) : undefined;
  return (
    <>
      <PageHead title="Volumes" actions={create}>
        Thin disks in the chunk store: they take the space that is written, not the size they show.
      </PageHead>
      {volumes.value === undefined ? (
        <Loading resource="volumes" />
      ) : (
        <Table
          label="Volumes"
          noun={["volume", "volumes"]}
          rows={volumes.value}
          columns={columnsFor(setAsked)}
          rowKey={(volume) => volume.id}
          text={(volume) =>
            `${volume.name} ${kinds[volume.kind]} ${volume.usedBy.map(({ name }) => name).join(" ")} ${volume.id}`
          }
          empty={
            <Empty icon="volume" title="No volumes yet" actions={create}>
              A volume is a disk that an iSCSI initiator can use. Images and client disks appear
              here too, as soon as there are some.
            </Empty>
          }
        />
      )}
      {asked?.what === "create" ? <CreateDialog onClose={close} /> : null}
      {asked?.what === "grow" ? <GrowDialog volume={asked.volume} onClose={close} /> : null}
      {asked?.what === "delete" ? <DeleteDialog volume={asked.volume} onClose={close} /> : null}
    </>
  );
}

function columnsFor(ask: (asked: Asked) => void): Column<Volume>[] {
  return [
    {
      title: "Name",
      sort: (volume) => volume.name,
      cell: (volume) => (
        <>
          <span class="name" title={volume.name}>
            {volume.name}
          </span>
          <span class="under" title={usersOf(volume)}>
            {volume.failure ?? usersOf(volume)}
          </span>
        </>
      ),
    },
    {
      title: "Kind",
      width: "150px",
      from: "wide",
      sort: (volume) => kinds[volume.kind],
      cell: (volume) => <KindBadge volume={volume} />,
    },
    {
      title: "Size",
      width: "112px",
      from: "medium",
      sort: (volume) => volume.sizeBytes,
      cell: (volume) => <span class="number">{formatSize(volume.sizeBytes)}</span>,
    },
    {
      title: "Written",
      width: "210px",
      sort: (volume) => volume.allocatedBytes ?? -1,
      cell: (volume) => <Written volume={volume} />,
    },
    {
      title: "Created",
      width: "120px",
      from: "wide",
      sort: (volume) => volume.createdAt,
      cell: (volume) => (
        <span class="soft">
          <Age at={volume.createdAt} />
        </span>
      ),
    },
    {
      title: "Actions",
      permission: "storage:write",
      width: "136px",
      end: true,
      cell: (volume) => (
        <div class="row-actions">
          <RowAction
            icon="snapshot"
            label={`Snapshots of ${volume.name}`}
            disabled={volume.readOnly || volume.kind === "image"}
            onClick={() => go(`/snapshots?volume=${volume.id}`)}
          />
          <RowAction
            icon="grow"
            label={`Grow ${volume.name}`}
            disabled={volume.readOnly || volume.state !== "ready"}
            onClick={() => ask({ what: "grow", volume })}
          />
          <RowAction
            icon="trash"
            danger
            label={`Delete ${volume.name}`}
            disabled={volume.state === "deleting"}
            onClick={() => ask({ what: "delete", volume })}
          />
        </div>
      ),
    },
  ];
}

const userWords = { image: "image", "boot-entry": "client", export: "export" } as const;

function usersOf(volume: Volume): string {
  if (volume.usedBy.length === 0) return "Not in use";
  return `Used by ${volume.usedBy.map((user) => `${userWords[user.kind]} ${user.name}`).join(", ")}`;
}

function KindBadge({ volume }: { volume: Volume }) {
  if (volume.state === "failed") return <Badge tone="bad">Failed</Badge>;
  if (volume.state !== "ready") {
    return <Badge tone="accent">{volume.state === "creating" ? "Creating" : "Deleting"}</Badge>;
  }
  return (
    <Badge tone="idle">
      {kinds[volume.kind]}
      {volume.readOnly && volume.kind !== "image" ? ", read-only" : ""}
    </Badge>
  );
}

function Written({ volume }: { volume: Volume }) {
  if (volume.allocatedBytes === null) {
    const away = store.value?.state !== "ready";
    return <span class="soft">{away ? "Unknown: the store is away" : "Not counted yet"}</span>;
  }
  return (
    <div class="used">
      <span class="number small">
        {formatSize(volume.allocatedBytes)}
        <span class="narrow-only"> written of {formatSize(volume.sizeBytes)}</span>
      </span>
      <Meter
        thin
        share={volume.sizeBytes === 0 ? 0 : volume.allocatedBytes / volume.sizeBytes}
        label={`Written of ${volume.name}`}
      />
    </div>
  );
}

const unreadable = "Write a size like 20 GiB or 512M.";

function CreateDialog({ onClose }: { onClose(): void }) {
  const [size, setSize] = useState("");
  const [source, setSource] = useState("");
  const ready = (images.value ?? []).filter((image) => image.state === "ready");
  const sizeBytes = readSize(size);
  const wrong = size !== "" && sizeBytes === undefined ? unreadable : undefined;
  return (
    <Dialog
      title="Create a volume"
      verb="Create"
      disabled={wrong !== undefined || (size === "" && source === "")}
      onClose={onClose}
      onSubmit={async (form) => {
        const name = String(form.get("name")).trim();
        await request<Volume>("POST", "/volumes", {
          name,
          ...(sizeBytes === undefined ? {} : { sizeBytes }),
          ...(source === "" ? {} : { fromImageId: source }),
        });
        say(`Volume ${name} is created.`);
      }}
    >
      <Field
        label="Name"
        name="name"
        required
        placeholder="scratch-01"
        hint="Letters, digits, dots, dashes and underscores."
      />
      {ready.length === 0 ? null : (
        <Select
          label="Starts as"
          name="source"
          value={source}
          onChange={setSource}
          options={[
            { value: "", label: "An empty disk" },
            ...ready.map((image) => ({ value: image.id, label: `A clone of ${image.name}` })),
          ]}
        />
      )}
      <Field
        label="Size"
        name="size"
        placeholder={source === "" ? "20 GiB" : "As large as the image"}
        value={size}
        onInput={setSize}
        wrong={wrong}
        hint={
          sizeBytes === undefined
            ? "Nothing is reserved: space is taken as it is written."
            : `${formatSize(sizeBytes)}. Nothing is reserved: space is taken as it is written.`
        }
      />
    </Dialog>
  );
}

function GrowDialog({ volume, onClose }: { volume: Volume; onClose(): void }) {
  const [size, setSize] = useState("");
  const sizeBytes = readSize(size);
  const wrong =
    size === ""
      ? undefined
      : sizeBytes === undefined
        ? unreadable
        : sizeBytes <= volume.sizeBytes
          ? `It must be more than ${formatSize(volume.sizeBytes)}: a volume never shrinks.`
          : undefined;
  return (
    <Dialog
      title={`Grow ${volume.name}`}
      verb="Grow"
      disabled={sizeBytes === undefined || wrong !== undefined}
      onClose={onClose}
      onSubmit={async () => {
        await request<Volume>("PATCH", `/volumes/${volume.id}`, { sizeBytes });
        say(`${volume.name} is now ${formatSize(sizeBytes!)}.`);
      }}
    >
      <p class="soft">
        It has {formatSize(volume.sizeBytes)} now. Whoever uses it sees the new size after a rescan;
        its partitions and file systems are grown there.
      </p>
      <Field
        label="New size"
        name="size"
        value={size}
        placeholder={formatSize(volume.sizeBytes * 2)}
        onInput={setSize}
        wrong={wrong}
      />
    </Dialog>
  );
}

function DeleteDialog({ volume, onClose }: { volume: Volume; onClose(): void }) {
  const written =
    volume.allocatedBytes === null
      ? `Everything written to it (at most ${formatSize(volume.sizeBytes)}).`
      : volume.allocatedBytes === 0
        ? "An empty disk: nothing was ever written to it."
        : `${formatSize(volume.allocatedBytes)} of data on it. It cannot be brought back.`;
  const snapshots = volume.snapshotCount ?? 0;
  if (volume.usedBy.length > 0) return <InUseDialog volume={volume} onClose={onClose} />;
  return (
    <Confirm
      title={`Delete volume ${volume.name}?`}
      verb="Delete volume"
      losses={[written, ...(snapshots === 0 ? [] : [snapshotsOf(snapshots)])]}
      {...(volume.allocatedBytes === 0 && snapshots === 0 ? {} : { typed: volume.name })}
      onClose={onClose}
      onConfirm={async () => {
        const query = snapshots === 0 ? "" : "?snapshots=delete";
        await request("DELETE", `/volumes/${volume.id}${query}`);
        say(`Volume ${volume.name} is deleted.`);
      }}
    />
  );
}

function snapshotsOf(count: number): string {
  return count === 1 ? "Its snapshot." : `Its ${count} snapshots.`;
}

const userPages = { image: "images", "boot-entry": "clients", export: "exports" } as const;

/** api refuses it; saying so first spares the person a red box. */
function InUseDialog({ volume, onClose }: { volume: Volume; onClose(): void }) {
  return (
    <Dialog
      title={`${volume.name} is in use`}
      verb="Close"
      onClose={onClose}
      onSubmit={async () => undefined}
    >
      <p>It can be deleted when nothing uses it any more. Now it is used by:</p>
      <ul class="users">
        {volume.usedBy.map((user) => (
          <li key={user.id}>
            <a href={`#/${userPages[user.kind]}`} onClick={onClose}>
              {userWords[user.kind]} {user.name}
            </a>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
