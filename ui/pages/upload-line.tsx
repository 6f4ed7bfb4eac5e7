import { formatSize } from "#lib/model/size.ts";
import { Icon } from "../components/icon.tsx";
import { Meter, Trouble } from "../components/parts.tsx";
import { formatAge, now } from "../components/time.tsx";
import { cancelUpload, dismissUpload, type Upload } from "../live/uploads.ts";

/** One file on its way to the node: how far, how fast, how long still. */
export function UploadLine({ upload }: { upload: Upload }) {
  if (upload.state === "failed") {
    return (
      <li class="upload">
        <div class="line">
          <span class="grow name">{upload.name} was not uploaded</span>
          <button type="button" class="button small" onClick={() => dismissUpload(upload.key)}>
            Close
          </button>
        </div>
        {upload.failure === undefined ? null : <Trouble failure={upload.failure} />}
      </li>
    );
  }
  const elapsedMs = Math.max(1, now.value - upload.startedAtMs);
  const bytesPerMs = upload.sentBytes / elapsedMs;
  const leftMs = bytesPerMs > 0 ? (upload.sizeBytes - upload.sentBytes) / bytesPerMs : undefined;
  const sent = upload.sentBytes >= upload.sizeBytes;
  return (
    <li class="upload">
      <div class="line">
        <Icon name="upload" />
        <span class="grow">
          <span class="name">{upload.name}</span>
          <span class="under number">
            {sent
              ? "Sent; the node is checking it"
              : `${formatSize(upload.sentBytes)} of ${formatSize(upload.sizeBytes)}, ${formatSize(Math.round(bytesPerMs * 1000))}/s${
                  leftMs === undefined ? "" : `, ${formatAge(leftMs)} left`
                }`}
          </span>
        </span>
        <button
          type="button"
          class="button small"
          aria-label={`Cancel the upload of ${upload.name}`}
          onClick={() => cancelUpload(upload.key)}
        >
          Cancel
        </button>
      </div>
      <Meter
        share={sent ? undefined : upload.sentBytes / upload.sizeBytes}
        label={`Upload of ${upload.name}`}
      />
    </li>
  );
}
