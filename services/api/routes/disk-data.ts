import { Readable } from "node:stream";
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { KeelsonError } from "#lib/model/errors.ts";
import type { OpenedDisk } from "../disk-exports.ts";
import type { DiskFileFormat } from "../disk-file.ts";
import { idParameter, type Router, type RouteSources } from "./route.ts";
import { watched } from "./watched.ts";

const querySchema = z.object({ format: z.enum(["qcow2", "raw"]).default("qcow2") });

interface Wanted {
  readonly kind: "snapshot" | "volume";
  readonly id: string;
  readonly sizeBytes: number;
  /** Of the file, without its ending. */
  readonly name: string;
}

/** Disks as files: what a snapshot or an image holds, from any byte on. */
export function addDiskDataRoutes(router: Router, { policy, diskExports }: RouteSources): void {
  const { app } = router;
  const route = (path: string, operationId: string, summary: string) =>
    router.route("backup:write", {
      method: "get",
      path,
      operationId,
      summary,
      request: { params: idParameter, query: querySchema },
      responses: {
        200: {
          description: "All of the file. With `Range: bytes=N-`, 206 and the rest of it.",
          content: { "application/octet-stream": { schema: z.any() } },
        },
      },
    });
  const answer = (find: (id: string) => Wanted) =>
    (async (context: Context) => {
      const { format } = querySchema.parse(context.req.query());
      const { kind, id, sizeBytes, name } = find(context.req.param("id") ?? "");
      const disk = await diskExports.open(kind, id, sizeBytes, format);
      return sendDisk(context, disk, `"${id}-${format}"`, fileName(name, format));
    }) as never;

  app.openapi(
    route("/snapshots/{id}/data", "getSnapshotData", "Download what a snapshot holds"),
    answer((id) => {
      const { state, sizeBytes, volumeId, name } = policy.get("snapshot", id);
      if (state !== "ready") throw notReady(name, state);
      const volume = policy.find("volume", volumeId)?.name ?? volumeId;
      return { kind: "snapshot", id, sizeBytes, name: `${volume}-${name}` };
    }),
  );
  app.openapi(
    route("/images/{id}/data", "getImageData", "Download an image"),
    answer((id) => {
      const { state, sizeBytes, volumeId, name } = policy.get("image", id);
      if (state !== "ready" || volumeId === null || sizeBytes === null) throw notReady(name, state);
      return { kind: "volume", id: volumeId, sizeBytes, name };
    }),
  );
}

function notReady(name: string, state: string): KeelsonError {
  return new KeelsonError("CONFLICT", `${name} can't be downloaded: it is ${state}.`, {
    operation: "download disk",
    object: name,
  });
}

function fileName(name: string, format: DiskFileFormat): string {
  const plain = name.replaceAll(/[^A-Za-z0-9._-]/g, "_").slice(0, 150);
  return `${plain}.${format === "raw" ? "img" : "qcow2"}`;
}

/** RFC 9110, section 14: one range; anything else is answered with all of it. */
function sendDisk(context: Context, disk: OpenedDisk, tag: string, file: string) {
  const { sizeBytes } = disk;
  const condition = context.req.header("if-range");
  const range =
    condition === undefined || condition === tag
      ? /^bytes=(\d{1,15})-(\d{0,15})$/.exec(context.req.header("range") ?? "")
      : null;
  const from = range === null ? 0 : Number(range[1]);
  const last = range === null || range[2] === "" ? sizeBytes - 1 : Number(range[2]);
  const to = Math.min(last + 1, sizeBytes);
  if (from >= to) {
    disk.close();
    return context.body(null, 416, { "content-range": `bytes */${sizeBytes}`, etag: tag });
  }
  const stream = Readable.toWeb(
    Readable.from(disk.read(from, to), { objectMode: false, highWaterMark: 2 ** 20 }),
  ) as unknown as ReadableStream<Uint8Array>;
  return context.body(
    watched(stream, () => disk.close()),
    range === null ? 200 : 206,
    {
      "content-type": "application/octet-stream",
      "content-length": String(to - from),
      "content-disposition": `attachment; filename="${file}"`,
      "accept-ranges": "bytes",
      etag: tag,
      ...(range === null ? {} : { "content-range": `bytes ${from}-${to - 1}/${sizeBytes}` }),
    },
  );
}
