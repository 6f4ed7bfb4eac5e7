import type { ExportCreated } from "../../../services/api/schema.ts";
import { Dialog } from "../../components/dialog.tsx";

/** How to reach a new export; its secret is told this once. */
export function ExportSecret({ created, onClose }: { created: ExportCreated; onClose(): void }) {
  return (
    <Dialog
      title={`${created.name} is exported`}
      verb="Done"
      onClose={onClose}
      onSubmit={async () => {}}
    >
      {created.chapSecret === null ? null : (
        <p>The secret is shown this once: copy it to the initiator now.</p>
      )}
      <dl class="facts">
        <dt>Portal</dt>
        <dd class="mono">{created.portals.join(", ")}</dd>
        <dt>Target</dt>
        <dd class="mono">{created.targetIqn}</dd>
        {created.chapSecret === null ? null : (
          <>
            <dt>CHAP user</dt>
            <dd class="mono">{created.chapUser}</dd>
            <dt>CHAP secret</dt>
            <dd class="mono">{created.chapSecret}</dd>
          </>
        )}
      </dl>
    </Dialog>
  );
}
