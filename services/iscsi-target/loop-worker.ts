/**
 * The data path's own thread: port, core and driver, and the control port to the main thread. A
 * blocking driver comes back to this thread's event loop when it is woken.
 */
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import type { PortOptions } from "#lib/volume/gateway-port.ts";
import { InlinePort } from "#lib/volume/inline-port.ts";
import { RingPort } from "#lib/volume/ring-port.ts";
import { native } from "#native";
import type { LoopMessage, LoopOptions, LoopReply } from "./control.ts";
import type { ControlAnswers, ControlRequest, Driver } from "./driver.ts";
import { createNativeDriver } from "./native-driver.ts";
import { createNetDriver } from "./net-driver.ts";
import { TargetCore } from "./target-core.ts";

const options = workerData as LoopOptions;
const control = parentPort!;
const say = (message: LoopMessage) => control.postMessage(message);

const portOptions: PortOptions = {
  path: join(options.storeRun, "ring.sock"),
  onChange: (connected, why) => say({ type: "store", connected, why }),
};

let driver: Driver | undefined;
let core: TargetCore | undefined;

const useNative = options.native && native !== undefined;
const port = useNative
  ? new RingPort(native!, portOptions)
  : new InlinePort({ ...portOptions, onReady: () => driver?.storeReady() });

const create = useNative ? createNativeDriver : createNetDriver;
driver = create({
  port,
  payload: port.payload,
  storeHandle: undefined,
  wakeHandle: options.wakeHandle,
  createCore: (host) => {
    core = new TargetCore({
      port,
      host,
      wallMs: Date.now,
      onEvent: (event) => say({ type: "event", event }),
      onSessions: () => say({ type: "sessions" }),
    });
    return core;
  },
});

async function answer(request: ControlRequest): Promise<ControlAnswers[ControlRequest["type"]]> {
  if (core === undefined || driver === undefined) {
    throw new KeelsonError("INTERNAL", "The data path has no core.");
  }
  switch (request.type) {
    case "listen": {
      const bound = await driver.listen(request.portals);
      return bound.map(({ host, port: real }) => `${host}:${real}`);
    }
    case "apply": {
      const result = core.apply(request.put);
      driver.storeReady();
      return result;
    }
    case "exports":
      return core.exportsView();
    case "sessions":
      return core.sessionsView();
    case "status":
      return {
        driver: driver.kind,
        store: core.storeConnected ? "connected" : "unreachable",
        sessionCount: core.sessionCount,
        loginFailures: { ...core.loginFailures },
      };
    case "stop":
      await driver.stop();
      port.end();
      return null;
  }
}

control.on("message", async ({ id, request }: { id: number; request: ControlRequest }) => {
  const reply = (body: LoopReply) => say({ type: "reply", id, body });
  try {
    reply({ ok: true, value: await answer(request) });
  } catch (error) {
    const known = isKeelsonError(error)
      ? error
      : new KeelsonError("INTERNAL", error instanceof Error ? error.message : String(error));
    const { code, message, object, remedy } = known;
    reply({
      ok: false,
      error: {
        code,
        message,
        ...(object === undefined ? {} : { object }),
        ...(remedy === undefined ? {} : { remedy }),
      },
    });
  }
  if (request.type === "stop") control.close();
});
