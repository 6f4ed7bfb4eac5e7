import { useLayoutEffect, useState } from "preact/hooks";
import { asFailure, type Failure, logIn } from "../client.ts";
import { Field } from "../components/field.tsx";
import { Trouble } from "../components/parts.tsx";

export function LogIn() {
  const [failure, setFailure] = useState<Failure>();
  const [busy, setBusy] = useState(false);
  // Before the first frame: who types at once types into the form.
  useLayoutEffect(() => {
    document.title = "Log in · Keelson";
    document.querySelector<HTMLInputElement>("input[name=user]")?.focus();
  }, []);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const user = String(form.get("user")).trim();
    const password = String(form.get("password"));
    if (user === "" || password === "") {
      setFailure({ title: "Give a user and a password.", detail: undefined, code: undefined });
      return;
    }
    setBusy(true);
    setFailure(undefined);
    try {
      await logIn({ user, password });
    } catch (error) {
      setFailure(asFailure(error));
      setBusy(false);
      document.querySelector<HTMLInputElement>("input[name=password]")?.select();
    }
  };
  return (
    <div class="login">
      <main class="card">
        <div class="mark">
          <img src="/icon.svg" alt="" />
          <div>
            <h1>Keelson</h1>
            <p class="soft">{location.hostname}</p>
          </div>
        </div>
        <form onSubmit={submit} noValidate>
          <Field label="User" name="user" autocomplete="username" required />
          <Field
            label="Password"
            name="password"
            type="password"
            autocomplete="current-password"
            required
          />
          {failure === undefined ? null : <Trouble failure={failure} />}
          <button type="submit" class="button primary" disabled={busy}>
            {busy ? "Logging in…" : "Log in"}
          </button>
        </form>
        <p class="foot">The user and password were set when this node was installed.</p>
      </main>
    </div>
  );
}
