import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { formatSize } from "#lib/model/size.ts";
import type { Image, Task } from "../../services/api/schema.ts";
import { downloadFile, request } from "../client.ts";
import { Confirm, Dialog } from "../components/dialog.tsx";
import { Field, Select } from "../components/field.tsx";
import { Icon } from "../components/icon.tsx";
import { Loading } from "../components/loading.tsx";
import { Badge, Empty, Meter, PageHead, RowAction } from "../components/parts.tsx";
import { type Column, Table } from "../components/table.tsx";
import { Age } from "../components/time.tsx";
import { complain, say } from "../components/toast.tsx";
import { freeName, nameFromFile } from "../entry.ts";
import { images, tasks, volumes } from "../live/state.ts";
import { continueUpload, startUpload, uploads } from "../live/uploads.ts";
import { may } from "../permission.ts";
import { UploadLine } from "./upload-line.tsx";

export function ImagesPage() {
  const [chosen, setChosen] = useState<File>();
  const [deleting, setDeleting] = useState<Image>();
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const rest = useRef<HTMLInputElement>(null);
  const [broken, setBroken] = useState<Image>();
  const goOn = (image: Image) => {
    setBroken(image);
    rest.current?.click();
  };

  const take = (files: readonly File[]) => {
    if (files.length === 1) setChosen(files[0]);
    else {
      for (const file of files) {
        startUpload(file, freeName(nameFromFile(file.name), takenNames()), "auto").catch(complain);
      }
    }
  };
  const mayWrite = may("storage:write");
  useDrop(mayWrite, setOver, take);

  const choose = mayWrite ? (
    <button type="button" class="button primary" onClick={() => input.current?.click()}>
      <Icon name="upload" />
      Upload image
    </button>
  ) : undefined;
  return (
    <>
      <PageHead title="Images" actions={choose}>
        Disks that clients start from. Each client boots a thin clone of its own: the image stays as
        it was uploaded.
      </PageHead>
      <FileInput at={input} label="Image file" multiple onChoose={take} />
      <FileInput
        at={rest}
        label="The same file again"
        onChoose={([file]) => {
          try {
            if (broken !== undefined) continueUpload(file, broken);
          } catch (error) {
            complain(error);
          }
        }}
      />
      {over ? (
        <div class="drop over section-drop">
          <Icon name="upload" />
          <b>Drop the file to upload it</b>
          <span class="soft">A disk image: raw, qcow2, VMDK, VHD, VHDX, VDI or OVA.</span>
        </div>
      ) : null}
      {uploads.value.length === 0 ? null : (
        <ul class="uploads" aria-label="Uploads">
          {uploads.value.map((upload) => (
            <UploadLine key={upload.key} upload={upload} />
          ))}
        </ul>
      )}
      {images.value === undefined ? (
        <Loading resource="images" />
      ) : (
        <Table
          label="Images"
          noun={["image", "images"]}
          rows={images.value}
          columns={columnsFor(setDeleting, goOn)}
          rowKey={(image) => image.id}
          text={(image) => `${image.name} ${image.format} ${image.state}`}
          empty={
            <Empty icon="image" title="No images yet" actions={choose}>
              Drop a disk image anywhere on this page, or choose a file. A Debian cloud image in
              qcow2 is a good first one. On the command line:{" "}
              <code>keelson images import FILE</code>
            </Empty>
          }
        />
      )}
      {chosen === undefined ? null : (
        <UploadDialog file={chosen} onClose={() => setChosen(undefined)} />
      )}
      {deleting === undefined ? null : (
        <DeleteDialog image={deleting} onClose={() => setDeleting(undefined)} />
      )}
    </>
  );
}

/** The browser's own dialog, opened by a click on `at`; the same file may be chosen again. */
function FileInput(props: {
  at: RefObject<HTMLInputElement | null>;
  label: string;
  multiple?: boolean;
  onChoose(files: readonly File[]): void;
}) {
  return (
    <input
      ref={props.at}
      class="unseen"
      type="file"
      tabIndex={-1}
      aria-label={props.label}
      multiple={props.multiple ?? false}
      onChange={(event) => {
        const files = [...(event.currentTarget.files ?? [])];
        event.currentTarget.value = "";
        if (files.length > 0) props.onChoose(files);
      }}
    />
  );
}

function takenNames(): string[] {
  return (images.value ?? []).map((image) => image.name);
}

/** Files dragged from outside the window, anywhere on the page. */
function useDrop(
  on: boolean,
  setOver: (over: boolean) => void,
  take: (files: readonly File[]) => void,
): void {
  useEffect(() => {
    if (!on) return;
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const dragOver = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(false);
      take([...(event.dataTransfer?.files ?? [])]);
    };
    addEventListener("dragover", dragOver);
    addEventListener("dragleave", leave);
    addEventListener("drop", drop);
    return () => {
      removeEventListener("dragover", dragOver);
      removeEventListener("dragleave", leave);
      removeEventListener("drop", drop);
    };
  }, [on]);
}

function columnsFor(remove: (image: Image) => void, goOn: (image: Image) => void): Column<Image>[] {
  return [
    {
      title: "Name",
      sort: (image) => image.name,
      cell: (image) => (
        <>
          <span class="name" title={image.name}>
            {image.name}
          </span>
          <span class="under" title={image.failure ?? ""}>
            {image.failure ?? clientsOf(image)}
          </span>
        </>
      ),
    },
    {
      title: "State",
      width: "220px",
      sort: (image) => image.state,
      cell: (image) => <ImageState image={image} />,
    },
    {
      title: "Disk size",
      width: "118px",
      from: "medium",
      sort: (image) => image.sizeBytes ?? -1,
      cell: (image) => (
        <span class="number">{image.sizeBytes === null ? "–" : formatSize(image.sizeBytes)}</span>
      ),
    },
    {
      title: "Written",
      width: "118px",
      from: "wide",
      sort: (image) => writtenBytes(image) ?? -1,
      cell: (image) => {
        const written = writtenBytes(image);
        return <span class="number">{written === undefined ? "–" : formatSize(written)}</span>;
      },
    },
    {
      title: "Added",
      width: "120px",
      from: "wide",
      sort: (image) => image.createdAt,
      cell: (image) => (
        <span class="soft">
          <Age at={image.createdAt} />
        </span>
      ),
    },
    {
      title: "Actions",
      permission: "storage:write",
      width: "112px",
      end: true,
      cell: (image) => (
        <div class="row-actions">
          {isBroken(image) ? (
            <RowAction
              icon="upload"
              label={`Go on with the upload of ${image.name}`}
              onClick={() => goOn(image)}
            />
          ) : (
            may("backup:write") && (
              <RowAction
                icon="download"
                label={`Download image ${image.name}`}
                disabled={image.state !== "ready"}
                onClick={() => downloadFile(`/images/${image.id}/data?format=qcow2`)}
              />
            )
          )}
          <RowAction
            icon="trash"
            danger
            label={`Delete image ${image.name}`}
            disabled={image.state === "deleting"}
            onClick={() => remove(image)}
          />
        </div>
      ),
    },
  ];
}

/** Its upload has begun, and nobody sends now. */
function isBroken(image: Image): boolean {
  const { id, state, receivedBytes } = image;
  if (state !== "uploading" || !receivedBytes) return false;
  const here = uploads.value.some((each) => each.imageId === id && each.state !== "failed");
  return !here && taskOf(image)?.state !== "running";
}

function clientsOf(image: Image): string {
  const clients =
    image.bootEntryCount === 0
      ? "No client boots it"
      : `${image.bootEntryCount} ${image.bootEntryCount === 1 ? "client boots" : "clients boot"} it`;
  return image.format === "auto" ? clients : `${clients} · from ${image.format}`;
}

function writtenBytes(image: Image): number | undefined {
  const volume = volumes.value?.find(({ id }) => id === image.volumeId);
  return volume?.allocatedBytes ?? undefined;
}

export function taskOf(image: Image): Task | undefined {
  return tasks.value?.find(({ id }) => id === image.taskId);
}

const phases: Record<string, string> = {
  upload: "Receiving",
  check: "Checking",
  convert: "Importing",
  seal: "Sealing",
};

export function phaseOf(task: Task | undefined): string {
  return task === undefined ? "Importing" : (phases[task.phase] ?? task.phase);
}

function ImageState({ image }: { image: Image }) {
  if (image.state === "ready") {
    return (
      <Badge tone="good">
        <Icon name="check" />
        Ready
      </Badge>
    );
  }
  if (image.state === "failed") return <Badge tone="bad">Import failed</Badge>;
  if (image.state === "deleting") return <Badge tone="idle">Deleting</Badge>;
  const task = taskOf(image);
  const share = task?.progressPercent == null ? undefined : task.progressPercent / 100;
  if (isBroken(image)) {
    return <Badge tone="warn">Broke off at {formatSize(image.receivedBytes ?? 0)}</Badge>;
  }
  const text = image.state === "uploading" ? "Waiting for its data" : phaseOf(task);
  return (
    <div class="used">
      <span class="small number">
        {text}
        {share === undefined ? "" : ` · ${Math.round(share * 100)} %`}
      </span>
      <Meter thin share={share} label={`${text}: ${image.name}`} />
    </div>
  );
}

function UploadDialog({ file, onClose }: { file: File; onClose(): void }) {
  const [name, setName] = useState(() => freeName(nameFromFile(file.name), takenNames()));
  const [format, setFormat] = useState("auto");
  return (
    <Dialog
      title="Upload an image"
      verb="Upload"
      disabled={name.trim() === "" || file.size === 0}
      onClose={onClose}
      onSubmit={() => startUpload(file, name.trim(), format as "auto")}
    >
      <p class="soft">
        {file.name}, {formatSize(file.size)}
        {file.size === 0 ? ": the file is empty; choose another one." : ""}
      </p>
      <Field
        label="Name"
        name="name"
        value={name}
        onInput={setName}
        hint="Letters, digits, dots, dashes and underscores."
      />
      <Select
        label="Format"
        name="format"
        value={format}
        onChange={setFormat}
        options={[
          { value: "auto", label: "Find out" },
          { value: "raw", label: "Raw disk" },
          { value: "qcow2", label: "qcow2" },
          { value: "vmdk", label: "VMDK" },
          { value: "vhd", label: "VHD" },
          { value: "vhdx", label: "VHDX" },
          { value: "vdi", label: "VDI" },
          { value: "ova", label: "OVA, with one disk" },
        ]}
      />
    </Dialog>
  );
}

function DeleteDialog({ image, onClose }: { image: Image; onClose(): void }) {
  const written = writtenBytes(image);
  const losses = [
    `The image ${image.name}${written === undefined ? "" : `, ${formatSize(written)} of data`}. To have it again, upload it again.`,
  ];
  if (image.bootEntryCount > 0) {
    losses.push(
      `${image.bootEntryCount} ${image.bootEntryCount === 1 ? "client names" : "clients name"} it: delete or change ${image.bootEntryCount === 1 ? "its boot entry" : "their boot entries"} first.`,
    );
  }
  return (
    <Confirm
      title={`Delete image ${image.name}?`}
      verb="Delete image"
      losses={losses}
      {...(image.state === "ready" ? { typed: image.name } : {})}
      onClose={onClose}
      onConfirm={async () => {
        await request("DELETE", `/images/${image.id}`);
        say(`Image ${image.name} is deleted.`);
      }}
    />
  );
}
