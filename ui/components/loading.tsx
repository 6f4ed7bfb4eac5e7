import type { EventResource } from "../../services/api/schema.ts";
import { refusals } from "../live/link.ts";
import { Trouble } from "./parts.tsx";

/** Until the first answer; or why there is none. */
export function Loading({ resource }: { resource: EventResource }) {
  const refusal = refusals.value.get(resource);
  if (refusal !== undefined) {
    return (
      <Trouble
        failure={{
          title: refusal,
          detail: "Reload the page to ask again; the conditions may say more.",
          code: undefined,
        }}
      />
    );
  }
  return (
    <div class="table-wrap loading" role="status">
      <span class="unseen">Loading</span>
      <div class="bone" />
      <div class="bone" />
      <div class="bone" />
    </div>
  );
}
