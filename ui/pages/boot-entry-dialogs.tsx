import { useState } from "preact/hooks";
import { parseMacAddress, parseUuid } from "#lib/model/ids.ts";
import type { BootEntry, BootEntryChange, Client } from "../../services/api/schema.ts";
import { request } from "../client.ts";
import { Dialog } from "../components/dialog.tsx";
import { Field, Select, useChoice } from "../components/field.tsx";
import { say } from "../components/toast.tsx";
import { images } from "../live/state.ts";

function imageOptions() {
  return (images.value ?? [])
    .filter((image) => image.state === "ready")
    .map((image) => ({ value: image.id, label: image.name }));
}

function identityWrong(mac: string, uuid: string) {
  return {
    mac:
      mac !== "" && parseMacAddress(mac) === undefined
        ? "Write it like 52:54:00:12:34:56."
        : undefined,
    uuid:
      uuid !== "" && parseUuid(uuid) === undefined
        ? "Write it like 4c4c4544-0042-4810-8054-b7c04f463132."
        : undefined,
  };
}

interface IdentityProps {
  readonly mac: string;
  readonly uuid: string;
  onMac(mac: string): void;
  onUuid(uuid: string): void;
}

function Identity({ mac, uuid, onMac, onUuid }: IdentityProps) {
  const wrong = identityWrong(mac, uuid);
  return (
    <>
      <Field
        label="MAC address"
        name="mac"
        value={mac}
        placeholder="52:54:00:12:34:56"
        onInput={onMac}
        wrong={wrong.mac}
      />
      <Field
        label="System UUID"
        name="uuid"
        value={uuid}
        onInput={onUuid}
        wrong={wrong.uuid}
        hint="One of the two is enough; the UUID stays when a network card is replaced."
      />
    </>
  );
}

/** `client`: the unknown machine that is to be registered; none for one that wasn't seen yet. */
export function RegisterDialog({
  client,
  onClose,
}: {
  client: Client | undefined;
  onClose(): void;
}) {
  const options = imageOptions();
  const [mac, setMac] = useState(client?.mac ?? "");
  const [uuid, setUuid] = useState(client?.uuid ?? "");
  const [imageId, setImageId] = useChoice(options);
  const wrong = identityWrong(mac, uuid);
  const incomplete =
    (mac === "" && uuid === "") ||
    wrong.mac !== undefined ||
    wrong.uuid !== undefined ||
    imageId === "";
  return (
    <Dialog
      title={client === undefined ? "Register a client" : `Register ${client.mac}`}
      verb="Register"
      disabled={incomplete}
      onClose={onClose}
      onSubmit={async (form) => {
        const name = String(form.get("name")).trim();
        await request<BootEntry>("POST", "/boot-entries", {
          name,
          imageId,
          ...(mac === "" ? {} : { mac }),
          ...(uuid === "" ? {} : { uuid }),
        });
        say(`${name} is registered. Start it from the network now.`);
      }}
    >
      <Field label="Name" name="name" placeholder="lab-pc-07" required />
      {options.length === 0 ? (
        <p class="soft">
          There is no image that is ready to boot: <a href="#/images">upload one first</a>.
        </p>
      ) : (
        <Select
          label="Boots"
          name="image"
          value={imageId}
          onChange={setImageId}
          options={options}
          hint="It gets its own thin clone at its first boot."
        />
      )}
      <Identity mac={mac} uuid={uuid} onMac={setMac} onUuid={setUuid} />
    </Dialog>
  );
}

export function ChangeDialog({ entry, onClose }: { entry: BootEntry; onClose(): void }) {
  const [name, setName] = useState(entry.name);
  const [mac, setMac] = useState(entry.mac ?? "");
  const [uuid, setUuid] = useState(entry.uuid ?? "");
  const [imageId, setImageId] = useState(entry.imageId);
  const wrong = identityWrong(mac, uuid);
  const known = imageOptions();
  const options = known.some(({ value }) => value === entry.imageId)
    ? known
    : [{ value: entry.imageId, label: entry.imageName ?? "its present image" }, ...known];
  const change: BootEntryChange = {
    ...(name.trim() === entry.name ? {} : { name: name.trim() }),
    ...(mac === (entry.mac ?? "") ? {} : { mac: mac === "" ? null : (mac as never) }),
    ...(uuid === (entry.uuid ?? "") ? {} : { uuid: uuid === "" ? null : (uuid as never) }),
    ...(imageId === entry.imageId ? {} : { imageId }),
  };
  return (
    <Dialog
      title={`Change ${entry.name}`}
      verb="Save"
      disabled={
        Object.keys(change).length === 0 ||
        wrong.mac !== undefined ||
        wrong.uuid !== undefined ||
        (mac === "" && uuid === "")
      }
      onClose={onClose}
      onSubmit={async () => {
        await request<BootEntry>("PATCH", `/boot-entries/${entry.id}`, change);
        say(`${name.trim()} is changed.`);
      }}
    >
      <Field label="Name" name="name" value={name} onInput={setName} />
      <Select
        label="Boots"
        name="image"
        value={imageId}
        onChange={setImageId}
        options={options}
        {...(imageId === entry.imageId || entry.cloneVolumeId === null
          ? {}
          : {
              hint: "Its present disk is deleted at its next boot, with all that it wrote there.",
            })}
      />
      <Identity mac={mac} uuid={uuid} onMac={setMac} onUuid={setUuid} />
    </Dialog>
  );
}
