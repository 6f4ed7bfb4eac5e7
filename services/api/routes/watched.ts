import { KeelsonError } from "#lib/model/errors.ts";

/** `ended` once, however it ends: also when nobody has read on for so long. */
export function watched(
  body: ReadableStream<Uint8Array>,
  ended: () => void,
  patienceMs = 60_000,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let timer: NodeJS.Timeout | undefined;
  let told = false;
  const tell = () => {
    clearTimeout(timer);
    if (!told) ended();
    told = true;
  };
  return new ReadableStream<Uint8Array>({
    start(controller) {
      timer = setTimeout(() => {
        tell();
        const why = new KeelsonError("TIMEOUT", "The other side stopped reading.");
        controller.error(why);
        void reader.cancel(why).catch(() => {});
      }, patienceMs);
      timer.unref();
    },
    async pull(controller) {
      timer?.refresh();
      try {
        const { done, value } = await reader.read();
        if (told) return;
        if (!done) return controller.enqueue(value);
        tell();
        controller.close();
      } catch (error) {
        tell();
        controller.error(error);
      }
    },
    async cancel(reason) {
      tell();
      await reader.cancel(reason);
    },
  });
}
