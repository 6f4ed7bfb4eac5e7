/** Control API on `<run>/api.sock`: the api service makes, clones, seals and deletes volumes here. */
import { Hono } from "hono";
import { validator } from "hono/validator";
import { z } from "zod";
import { KeelsonError } from "#lib/model/errors.ts";
import { problemHandler } from "#lib/rpc/problem.ts";
import { type ControlMessage, type ControlReply, unwrapReply } from "./control.ts";
import {
  deleteVolumeQuerySchema,
  type NbdGrant,
  nbdGrantSchema,
  patchVolumeSchema,
  putVolumeSchema,
  type StoreInfo,
  uuidSchema,
  type VolumeInfo,
} from "./schema.ts";

export interface ChunkStorePorts {
  /** Asks the thread that owns the store. */
  control(message: ControlMessage): Promise<ControlReply>;
  grant(volume: VolumeInfo, readOnly: boolean): NbdGrant;
  unexpected(error: Error): void;
}

export function createApi(ports: ChunkStorePorts) {
  const ask = async <Value>(message: ControlMessage) =>
    unwrapReply(await ports.control(message)) as Value;
  const app = new Hono()
    .get("/v1/store", async (context) => context.json(await ask<StoreInfo>({ kind: "store" })))
    .get("/v1/status", async (context) => context.json(await ask<StoreInfo>({ kind: "store" })))
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
        const volume = await ask<VolumeInfo>({ kind: "volume", id });
        return context.json(ports.grant(volume, readOnly));
      },
    );
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
