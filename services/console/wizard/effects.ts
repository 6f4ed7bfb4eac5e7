/** Carries out what the wizard asks for: the installer does it, the answer comes back as an event. */
import { explainError } from "#lib/model/errors.ts";
import { hashPasswordAsync } from "#lib/password/password.ts";
import { unixClient, unwrap } from "#lib/rpc/client.ts";
import type { InstallerApi } from "#services/installer/api.ts";
import type { InstallerView } from "#services/installer/schema.ts";
import type { WizardEffect, WizardEvent } from "./wizard.ts";

/** Trying a network takes its time, with nobody answering. */
const timeoutMs = 120_000;

export type InstallerClient = ReturnType<typeof unixClient<InstallerApi>>;

export function connectInstaller(socket: string): InstallerClient {
  return unixClient<InstallerApi>(socket, timeoutMs);
}

export async function carryOut(
  installer: InstallerClient,
  effect: WizardEffect,
): Promise<WizardEvent | undefined> {
  try {
    return await perform(installer, effect);
  } catch (error) {
    if (effect.kind === "attend") return undefined;
    return { kind: "failed", request: effect.request, message: explainError(error) };
  }
}

async function perform(
  installer: InstallerClient,
  effect: WizardEffect,
): Promise<WizardEvent | undefined> {
  const { v1 } = installer;
  switch (effect.kind) {
    case "attend":
      await unwrap(v1.attended.$put({ json: { attended: effect.attended } }));
      return undefined;
    case "hash":
      return {
        kind: "hashed",
        request: effect.request,
        hash: await hashPasswordAsync(effect.password),
      };
    case "probe": {
      const probes = await unwrap(v1["network-test"].$post({ json: { text: effect.text } }));
      return { kind: "probed", request: effect.request, probes };
    }
    case "plan": {
      const plan = await unwrap(v1.plan.$post({ json: { text: effect.text } }));
      return { kind: "planned", request: effect.request, plan };
    }
    case "listMedia": {
      const media = await unwrap(v1.media.$get());
      return { kind: "media", request: effect.request, media };
    }
    case "save": {
      const { device, text } = effect;
      const { place } = await unwrap(v1.answers.$post({ json: { device, text } }));
      return { kind: "saved", request: effect.request, place };
    }
    case "install":
      await unwrap(v1.install.$post({ json: { text: effect.text } }));
      return { kind: "started", request: effect.request };
    case "power":
      await unwrap(v1.power.$post({ json: { action: effect.action } }));
      return undefined;
  }
}

/** Calls `onView` with each new state of the installer, from now on until `signal`. */
export async function followInstaller(
  installer: InstallerClient,
  onView: (view: InstallerView) => void,
  signal: AbortSignal,
): Promise<void> {
  let after: number | undefined;
  while (!signal.aborted) {
    try {
      const query = after === undefined ? {} : { after };
      const view = await unwrap(installer.v1.view.$get({ query }));
      // A restarted installer counts from the start again.
      if (view.sequence !== after) onView(view);
      after = view.sequence;
    } catch {
      after = undefined;
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
  }
}
