/** One's own password: the present one, a new one twice, and the request that changes it. */
import { useState } from "preact/hooks";
import { request, resumeSession } from "../client.ts";
import { t } from "../words/words.ts";
import { Field } from "./field.tsx";
import { say } from "./toast.tsx";

const shortest = 8;

/** `fields` stand in a form, whose data `change` is given once they are `ready`. */
export function usePasswordChange({ takesFocus = false } = {}) {
  const [next, setNext] = useState("");
  const [again, setAgain] = useState("");
  return {
    ready: next.length >= shortest && next === again,
    change: async (form: FormData) => {
      await request("PUT", "/session/password", { current: String(form.get("current")), next });
      say(t("password.changed"));
      await resumeSession();
    },
    fields: (
      <>
        <Field
          label={t("password.current")}
          name="current"
          type="password"
          autocomplete="current-password"
          takesFocus={takesFocus}
        />
        <Field
          label={t("password.next")}
          name="next"
          type="password"
          autocomplete="new-password"
          hint={t("password.hint")}
          value={next}
          onInput={setNext}
        />
        <Field
          label={t("password.again")}
          name="again"
          type="password"
          autocomplete="new-password"
          value={again}
          wrong={again !== "" && again !== next ? t("password.differ") : undefined}
          onInput={setAgain}
        />
      </>
    ),
  };
}
