/** Log-in or console; the connection lives as long as the session. */
import { useSignalEffect } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { asFailure, type Failure, resumeSession, session } from "./client.ts";
import { Trouble } from "./components/parts.tsx";
import { Toasts } from "./components/toast.tsx";
import { closeLink, openLink } from "./live/link.ts";
import { LogIn } from "./pages/login.tsx";
import { MustChangePassword } from "./pages/must-change-password.tsx";
import { Shell } from "./shell.tsx";

export function App() {
  const [failure, setFailure] = useState<Failure>();
  useEffect(() => {
    resumeSession().catch((error) => setFailure(asFailure(error)));
  }, []);
  useSignalEffect(() => {
    if (session.value && !session.value.mustChangePassword) openLink();
    else closeLink();
  });
  if (session.value === undefined) {
    return failure === undefined ? null : (
      <main>
        <Trouble failure={failure} />
        <p>
          <button type="button" class="button" onClick={() => location.reload()}>
            Try again
          </button>
        </p>
      </main>
    );
  }
  return (
    <>
      <Inside />
      <Toasts />
    </>
  );
}

function Inside() {
  if (session.value === null) return <LogIn />;
  return session.value?.mustChangePassword ? <MustChangePassword /> : <Shell />;
}
