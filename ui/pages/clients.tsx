import { useState } from "preact/hooks";
import type { BootEntry, Client } from "../../services/api/schema.ts";
import { request } from "../client.ts";
import { Confirm } from "../components/dialog.tsx";
import { Icon } from "../components/icon.tsx";
import { Loading } from "../components/loading.tsx";
import { Badge, Empty, PageHead, RowAction } from "../components/parts.tsx";
import { Stages } from "../components/stages.tsx";
import { type Column, Table } from "../components/table.tsx";
import { Age } from "../components/time.tsx";
import { complain, say } from "../components/toast.tsx";
import { useRefreshed } from "../live/link.ts";
import { bootEntries, clients, images, volumes } from "../live/state.ts";
import { may } from "../permission.ts";
import { useAddressAction } from "../router.ts";
import { ChangeDialog, RegisterDialog } from "./boot-entry-dialogs.tsx";

/** A boot entry with what was seen of its machine. */
interface Machine {
  readonly entry: BootEntry;
  readonly client: Client | undefined;
}

type Asked =
  | { readonly what: "register"; readonly client: Client | undefined }
  | { readonly what: "change" | "reset" | "delete"; readonly entry: BootEntry };

export function ClientsPage() {
  useRefreshed("clients");
  const [asked, setAsked] = useState<Asked>();
  const close = () => setAsked(undefined);
  const entries = bootEntries.value;
  const seen = clients.value ?? [];
  const unknown = seen.filter((client) => client.bootEntryId === null);
  const seenByEntry = new Map(seen.map((client) => [client.bootEntryId, client]));
  const machines = entries?.map((entry) => ({ entry, client: seenByEntry.get(entry.id) }));
  useAddressAction("new", () => setAsked({ what: "register", client: undefined }));
  const add = may("netboot:write") ? (
    <button
      type="button"
      class="button primary"
      onClick={() => setAsked({ what: "register", client: undefined })}
    >
      <Icon name="plus" />
      Register client
    </button>
  ) : undefined;
  return (
    <>
      <PageHead title="Clients" actions={add}>
        Machines that boot from this node, and how far each one got.
      </PageHead>
      {unknown.length === 0 ? null : (
        <UnknownMachines
          clients={unknown}
          onRegister={(client) => setAsked({ what: "register", client })}
        />
      )}
      {machines === undefined || clients.value === undefined ? (
        <Loading resource={machines === undefined ? "boot-entries" : "clients"} />
      ) : (
        <Table
          label="Registered clients"
          noun={["client", "clients"]}
          rows={machines}
          columns={columnsFor(setAsked)}
          rowKey={({ entry }) => entry.id}
          text={({ entry, client }) =>
            `${entry.name} ${entry.mac} ${entry.uuid} ${entry.imageName} ${client?.address} ${client?.stage}`
          }
          empty={
            <Empty icon="client" title="No clients registered" actions={add}>
              {images.value?.length === 0
                ? "First upload an image. Then register a machine by its MAC address, "
                : "Register a machine by its MAC address, "}
              or let it start from the network: it appears here as an unknown machine, ready to be
              registered.
            </Empty>
          }
        />
      )}
      {asked?.what === "register" ? <RegisterDialog client={asked.client} onClose={close} /> : null}
      {asked?.what === "change" ? <ChangeDialog entry={asked.entry} onClose={close} /> : null}
      {asked?.what === "reset" ? <ResetDialog entry={asked.entry} onClose={close} /> : null}
      {asked?.what === "delete" ? <DeleteDialog entry={asked.entry} onClose={close} /> : null}
    </>
  );
}

interface UnknownProps {
  readonly clients: readonly Client[];
  onRegister(client: Client): void;
}

function UnknownMachines({ clients: unknown, onRegister }: UnknownProps) {
  return (
    <section class="panel unknown" aria-label="Unknown machines">
      <header>
        <h2>Unknown machines</h2>
        <Badge tone="warn">{unknown.length} asked to boot</Badge>
      </header>
      <ul class="lines">
        {unknown.slice(0, 50).map((client) => (
          <li key={client.mac}>
            <Icon name="client" />
            <span class="grow">
              <span class="name mono">{client.mac}</span>
              <span class="under">
                {[client.address, client.arch, client.failure ?? stageText(client)]
                  .filter(Boolean)
                  .join(" · ")}
              </span>
            </span>
            <span class="when">
              <Age at={client.lastSeenAt} />
            </span>
            {may("netboot:write") ? (
              <>
                <button type="button" class="button small" onClick={() => onRegister(client)}>
                  Register
                </button>
                <RowAction
                  icon="close"
                  label={`Forget ${client.mac}`}
                  onClick={() => {
                    request("DELETE", `/clients/${client.mac}`)
                      .then(() => say(`${client.mac} is forgotten until it asks again.`))
                      .catch(complain);
                  }}
                />
              </>
            ) : null}
          </li>
        ))}
      </ul>
    </section>
  );
}

function stageText(client: Client): string {
  return client.stage === null ? "" : `reached ${client.stage}`;
}

function columnsFor(ask: (asked: Asked) => void): Column<Machine>[] {
  return [
    {
      title: "Client",
      sort: ({ entry }) => entry.name,
      cell: ({ entry, client }) => (
        <>
          <span class="name" title={entry.name}>
            {entry.name}
          </span>
          <span class="under mono">
            {[entry.mac ?? entry.uuid, client?.address].filter(Boolean).join(" · ")}
          </span>
        </>
      ),
    },
    {
      title: "Image",
      width: "22%",
      from: "wide",
      sort: ({ entry }) => entry.imageName ?? "",
      cell: ({ entry }) => (
        <>
          <span class="clip" title={entry.imageName ?? ""}>
            {entry.imageName ?? "Image is gone"}
          </span>
          <span class={`under${entry.cloneState === "failed" ? " bad-text" : ""}`}>
            {cloneTexts[entry.cloneState]}
          </span>
        </>
      ),
    },
    {
      title: "Boot",
      className: "boot-column",
      sort: ({ client }) => client?.stages.length ?? 0,
      cell: ({ client }) =>
        client === undefined ? (
          <span class="soft small">Never seen. Start it from the network.</span>
        ) : client.failure !== null ? (
          <span class="boot-failure" title={client.failure}>
            <Badge tone="bad">{client.stage ?? "failed"}</Badge>
            <span class="clip">{client.failure}</span>
          </span>
        ) : (
          <Stages client={client} />
        ),
    },
    {
      title: "Last seen",
      width: "116px",
      from: "wide",
      sort: ({ client }) => client?.lastSeenAt ?? "",
      cell: ({ client }) => (
        <span class="soft">{client === undefined ? "–" : <Age at={client.lastSeenAt} />}</span>
      ),
    },
    {
      title: "Actions",
      permission: "netboot:write",
      width: "132px",
      end: true,
      cell: ({ entry }) => (
        <div class="row-actions">
          <RowAction
            icon="edit"
            label={`Change ${entry.name}`}
            onClick={() => ask({ what: "change", entry })}
          />
          <RowAction
            icon="reset"
            label={`Reset the disk of ${entry.name}`}
            disabled={entry.cloneState === "none"}
            onClick={() => ask({ what: "reset", entry })}
          />
          <RowAction
            icon="trash"
            danger
            label={`Delete ${entry.name}`}
            onClick={() => ask({ what: "delete", entry })}
          />
        </div>
      ),
    },
  ];
}

const cloneTexts: Record<BootEntry["cloneState"], string> = {
  none: "Its disk is made at first boot",
  creating: "Its disk is being made",
  ready: "Has its own disk",
  failed: "Its disk could not be made",
};

function cloneLoss(entry: BootEntry): string {
  const clone = volumes.value?.find(({ id }) => id === entry.cloneVolumeId);
  if (entry.cloneVolumeId === null) return "It has no disk of its own yet: no data is lost.";
  return `Everything that ${entry.name} wrote to its disk${
    clone === undefined ? "" : ` ${clone.name}`
  }. It cannot be brought back.`;
}

function ResetDialog({ entry, onClose }: { entry: BootEntry; onClose(): void }) {
  return (
    <Confirm
      title={`Reset the disk of ${entry.name}?`}
      verb="Reset disk"
      losses={[cloneLoss(entry), "If it runs now, it loses its disk while it runs."]}
      typed={entry.name}
      onClose={onClose}
      onConfirm={async () => {
        await request("POST", `/boot-entries/${entry.id}/reset`);
        say(
          `${entry.name} starts from a fresh copy of ${entry.imageName ?? "its image"} next time.`,
        );
      }}
    >
      <p class="soft">
        Its next boot starts from a fresh copy of {entry.imageName ?? "its image"}.
      </p>
    </Confirm>
  );
}

function DeleteDialog({ entry, onClose }: { entry: BootEntry; onClose(): void }) {
  return (
    <Confirm
      title={`Delete client ${entry.name}?`}
      verb="Delete client"
      losses={[cloneLoss(entry), "The machine can no longer boot from this node."]}
      {...(entry.cloneVolumeId === null ? {} : { typed: entry.name })}
      onClose={onClose}
      onConfirm={async () => {
        await request("DELETE", `/boot-entries/${entry.id}`);
        say(`Client ${entry.name} is deleted.`);
      }}
    />
  );
}
