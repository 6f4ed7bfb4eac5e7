/** Control API on `<run>/api.sock`: the api service makes volumes and snapshots here. */
import { Hono } from "hono";
import { validator } from "hono/validator";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import { type ControlMessage, type ControlReply, unwrapReply } from "./control.ts";
import {
  createSnapshotsSchema,
  type DifferencesPage,
  deleteSnapshotQuerySchema,
  deleteVolumeQuerySchema,
  differencesQuerySchema,
  type NbdGrant,
  nbdGrantSchema,
  patchVolumeSchema,
  putVolumeSchema,
  revertVolumeSchema,
  type ServedStoreInfo,
  type SnapshotInfo,
  type StoreInfo,
  scrubSettingsSchema,
  uuidSchema,
  type VolumeInfo,
} from "./schema.ts";
import type { Scrubber } from "./scrubber.ts";

export interface ChunkStorePorts {
  /** Asks the thread that owns the store. */
  control(message: ControlMessage): Promise<ControlReply>;
  readonly scrubber: Pick<Scrubber, "info" | "badBlocks" | "start" | "stop" | "set">;
  grant(id: string, readOnly: boolean): NbdGrant;
  nowMs(): number;
  unexpected(error: Error): void;
}

export function createApi(ports: ChunkStorePorts) {
  const ask = async <Value>(message: ControlMessage) =>
    unwrapReply(await ports.control(message)) as Value;
  const storeInfo = async (): Promise<ServedStoreInfo> => ({
    ...(await ask<StoreInfo>({ kind: "store" })),
    badBlocks: ports.scrubber.badBlocks,
  });
  const app = new Hono()
    .get("/v1/store", async (context) => context.json(await storeInfo()))
    .get("/v1/status", async (context) => context.json(await storeInfo()))
    .get("/v1/volumes", async (context) =>
      context.json(await ask<VolumeInfo[]>({ kind: "volumes" })),
    )
    .get("/v1/volumes/:id", async (context) =>
      context.json(
        await ask<VolumeInfo>({ kind: "volume", id: volumeId(context.req.param("id")) }),
      ),
    )
    .put("/v1/volumes/:id", validator("json", parse(putVolumeSchema)), async (context) => {
      const id = volumeId(context.req.param("id"));
      const body = context.req.valid("json");
      return context.json(await ask<VolumeInfo>({ kind: "put", id, body }));
    })
    .patch("/v1/volumes/:id", validator("json", parse(patchVolumeSchema)), async (context) => {
      const id = volumeId(context.req.param("id"));
      const { sizeBytes } = context.req.valid("json");
      return context.json(await ask<VolumeInfo>({ kind: "grow", id, sizeBytes }));
    })
    .post("/v1/volumes/:id/seal", async (context) =>
      context.json(await ask<VolumeInfo>({ kind: "seal", id: volumeId(context.req.param("id")) })),
    )
    .delete(
      "/v1/volumes/:id",
      validator("query", parse(deleteVolumeQuerySchema)),
      async (context) => {
        const id = volumeId(context.req.param("id"));
        await ask<null>({ kind: "delete", id, force: context.req.valid("query").force === "true" });
        return context.body(null, 204);
      },
    )
    .post(
      "/v1/volumes/:id/nbd-grants",
      validator("json", parse(nbdGrantSchema)),
      async (context) => {
        const { readOnly } = context.req.valid("json");
        const id = volumeId(context.req.param("id"));
        const { id: found } = await ask<VolumeInfo>({ kind: "volume", id });
        return context.json(ports.grant(found, readOnly));
      },
    )
    .post(
      "/v1/volumes/:id/revert",
      validator("json", parse(revertVolumeSchema)),
      async (context) => {
        const id = volumeId(context.req.param("id"));
        await ask<null>({ kind: "revert", id, ...context.req.valid("json") });
        return context.json(await ask<VolumeInfo>({ kind: "volume", id }));
      },
    )
    .get("/v1/scrub", (context) => context.json(ports.scrubber.info()))
    .post("/v1/scrub", (context) => context.json(ports.scrubber.start(), 202))
    .delete("/v1/scrub", async (context) => context.json(await ports.scrubber.stop()))
    .put("/v1/scrub/settings", validator("json", parse(scrubSettingsSchema)), (context) =>
      context.json(ports.scrubber.set(context.req.valid("json"))),
    )
    .get("/v1/snapshots", async (context) =>
      context.json(await ask<SnapshotInfo[]>({ kind: "snapshots" })),
    )
    .post("/v1/snapshots", validator("json", parse(createSnapshotsSchema)), async (context) => {
      const body = context.req.valid("json");
      const nowMs = ports.nowMs();
      return context.json(await ask<SnapshotInfo[]>({ kind: "create-snapshots", body, nowMs }));
    })
    .get("/v1/snapshots/:id", async (context) =>
      context.json(
        await ask<SnapshotInfo>({ kind: "snapshot", id: volumeId(context.req.param("id")) }),
      ),
    )
    .delete(
      "/v1/snapshots/:id",
      validator("query", parse(deleteSnapshotQuerySchema)),
      async (context) => {
        const id = volumeId(context.req.param("id"));
        const force = context.req.valid("query").force === "true";
        await ask<null>({ kind: "delete-snapshot", id, force });
        return context.body(null, 204);
      },
    )
    .post("/v1/snapshots/:id/nbd-grants", async (context) => {
      const id = volumeId(context.req.param("id"));
      const { id: found } = await ask<SnapshotInfo>({ kind: "snapshot", id });
      return context.json(ports.grant(found, true));
    })
    .get("/v1/differences", validator("query", parse(differencesQuerySchema)), async (context) => {
      const query = context.req.valid("query");
      return context.json(await ask<DifferencesPage>({ kind: "differences", query }));
    });
  app.onError(problemHandler(ports.unexpected));
  return app;
}

export type ChunkStoreApi = ReturnType<typeof createApi>;

function volumeId(text: string): string {
  const parsed = uuidSchema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new KeelsonError("INVALID_ARGUMENT", `"${text.slice(0, 60)}" is not a volume id.`, {
    remedy: "Give a UUID such as 6f1f9a3e-7c0b-4c59-9d53-0d7c2f3f8a11.",
  });
}

/** A validator that names every fault by its path. */
function parse<Schema extends z.ZodType>(schema: Schema) {
  return (body: unknown): z.infer<Schema> => {
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
    throw new KeelsonError("INVALID_ARGUMENT", z.prettifyError(parsed.error), {
      remedy: "Correct these fields.",
    });
  };
}
