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
  const sent = upload.state === "sending" && upload.sentBytes >= upload.sizeBytes;
  return (
    <li class="upload">
      <div class="line">
        <Icon name="upload" />
        <span class="grow">
          <span class="name">{upload.name}</span>
          <span class="under number">
            {sent ? "Sent; the node is checking it" : progressText(upload)}
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
        share={sent || upload.state === "waiting" ? undefined : upload.sentBytes / upload.sizeBytes}
        label={`Upload of ${upload.name}`}
      />
    </li>
  );
}

/** `1.2 GiB of 4 GiB, 110 MiB/s, 26 s left`; too early to tell how fast it is: without. */
function progressText(upload: Upload): string {
  const { sentBytes, sizeBytes, startedAtMs, startedBytes, state } = upload;
  if (state === "waiting") return "The node is away; this goes on when it is back";
  const parts = [`${formatSize(sentBytes)} of ${formatSize(sizeBytes)}`];
  const elapsedMs = now.value - startedAtMs;
  if (elapsedMs > 1000 && sentBytes > startedBytes) {
    const bytesPerMs = (sentBytes - startedBytes) / elapsedMs;
    parts.push(`${formatSize(Math.round(bytesPerMs * 1000))}/s`);
    parts.push(`${formatAge((sizeBytes - sentBytes) / bytesPerMs)} left`);
  }
  return parts.join(", ");
}
