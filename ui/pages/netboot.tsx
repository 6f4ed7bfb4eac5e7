import { useState } from "preact/hooks";
import type { Netboot, NetbootSettings } from "../../services/api/schema.ts";
import { asFailure, type Failure, request } from "../client.ts";
import { Field } from "../components/field.tsx";
import { Icon } from "../components/icon.tsx";
import { Loading } from "../components/loading.tsx";
import { Badge, Empty, PageHead, Trouble } from "../components/parts.tsx";
import { say } from "../components/toast.tsx";
import { netboot } from "../live/state.ts";
import { may } from "../permission.ts";

type Interface = Netboot["interfaces"][number];
type Mode = NetbootSettings["mode"];

const modes: readonly [mode: Mode, label: string, meaning: string][] = [
  ["off", "Off", "Nothing is answered on this network."],
  [
    "proxy",
    "Beside a DHCP server",
    "Another server gives the addresses; this node only tells machines what to boot.",
  ],
  [
    "server",
    "DHCP server",
    "This node gives the addresses too. There must be no other DHCP server on this network.",
  ],
];

export function NetbootPage() {
  const settings = netboot.value;
  return (
    <>
      <PageHead title="Network boot">
        On which networks this node answers machines that start from the network.
      </PageHead>
      {settings === undefined ? (
        <Loading resource="netboot" />
      ) : (
        <>
          {settings.service === "running" ? null : (
            <div class="notice-gap">
              <Trouble
                failure={{
                  title:
                    settings.service === "off"
                      ? "The network boot service is not asked to run on this node."
                      : "The network boot service does not answer.",
                  detail: settings.message ?? "Settings are kept and applied when it is back.",
                  code: undefined,
                }}
              />
            </div>
          )}
          {settings.interfaces.length === 0 ? (
            <div class="table-wrap">
              <Empty icon="netboot" title="No network interface">
                This node reports no interface that could serve network boot. Plug in a network,
                then look at the conditions.
              </Empty>
            </div>
          ) : (
            <div class="interfaces">
              {settings.interfaces.map((item) => (
                <InterfaceForm key={item.name} item={item} />
              ))}
            </div>
          )}
        </>
      )}
    </>
  );
}

interface Draft {
  readonly mode: Mode;
  readonly first: string;
  readonly last: string;
  readonly gateway: string;
  readonly dns: string;
  readonly leaseMinutes: string;
}

function draftOf(settings: NetbootSettings): Draft {
  return {
    mode: settings.mode,
    first: settings.pool?.first ?? "",
    last: settings.pool?.last ?? "",
    gateway: settings.gateway ?? "",
    dns: settings.dns.join(" "),
    leaseMinutes: String(Math.round(settings.leaseSeconds / 60)),
  };
}

function settingsOf(draft: Draft): NetbootSettings {
  return {
    mode: draft.mode,
    pool:
      draft.first.trim() === "" && draft.last.trim() === ""
        ? null
        : { first: draft.first.trim(), last: draft.last.trim() },
    gateway: draft.gateway.trim() === "" ? null : draft.gateway.trim(),
    dns: draft.dns.split(/[\s,]+/).filter(Boolean),
    leaseSeconds: Math.round(Number(draft.leaseMinutes) * 60),
  };
}

const ipv4Pattern = /^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$/;

function wrongAddress(text: string, needed: boolean): string | undefined {
  if (text.trim() === "") return needed ? "Give an address like 10.77.0.100." : undefined;
  return ipv4Pattern.test(text.trim()) ? undefined : `“${text}” is not an IPv4 address.`;
}

function withoutSaved(edits: Partial<Draft>, saved: Draft): Partial<Draft> {
  const left = Object.entries(edits).filter(
    ([field, value]) => saved[field as keyof Draft] !== value,
  );
  return Object.fromEntries(left);
}

function InterfaceForm({ item }: { item: Interface }) {
  const saved = draftOf(item.settings);
  // Only what was edited is kept: the rest follows the node, and nothing typed is ever overwritten.
  const [edits, setEdits] = useState<Partial<Draft>>({});
  const draft = { ...saved, ...edits };
  const [failure, setFailure] = useState<Failure>();
  const [busy, setBusy] = useState(false);
  const changed = JSON.stringify(draft) !== JSON.stringify(saved);
  const set = (field: keyof Draft) => (value: string) =>
    setEdits((before) => ({ ...before, [field]: value }));
  const server = draft.mode === "server";
  const wrong = {
    first: server ? wrongAddress(draft.first, draft.first !== saved.first) : undefined,
    last: server ? wrongAddress(draft.last, draft.last !== saved.last) : undefined,
    gateway: server ? wrongAddress(draft.gateway, false) : undefined,
    dns: server
      ? draft.dns
          .split(/[\s,]+/)
          .map((part) => wrongAddress(part, false))
          .find(Boolean)
      : undefined,
    lease:
      server && !(Number(draft.leaseMinutes) >= 2 && Number(draft.leaseMinutes) <= 10_080)
        ? "2 minutes to 10080 (7 days)."
        : undefined,
  };
  const incomplete = server && (draft.first.trim() === "" || draft.last.trim() === "");
  const save = async (event: SubmitEvent) => {
    event.preventDefault();
    setBusy(true);
    setFailure(undefined);
    try {
      netboot.value = await request<Netboot>("PUT", "/netboot", {
        interface: item.name,
        settings: settingsOf(draft),
      });
      // What was typed while this was on its way stays.
      setEdits((now) => withoutSaved(now, draft));
      say(`Network boot on ${item.name} is ${draft.mode === "off" ? "off" : "on"}.`);
    } catch (error) {
      setFailure(asFailure(error));
    }
    setBusy(false);
  };
  return (
    <form class="panel interface" onSubmit={save} noValidate aria-label={`Interface ${item.name}`}>
      <header>
        <Icon name="netboot" />
        <h2>{item.name}</h2>
        <span class="soft mono small">
          {item.address === null ? "no address" : `${item.address}/${item.prefixLength ?? "?"}`}
          {item.mac === null ? "" : ` · ${item.mac}`}
        </span>
        {item.settings.mode === "off" ? (
          <Badge tone="idle">Off</Badge>
        ) : (
          <Badge tone="good">{item.settings.mode === "server" ? "DHCP server" : "Proxy"}</Badge>
        )}
      </header>
      <div class="body interface-body">
        <fieldset disabled={!may("netboot:write")}>
          <legend class="unseen">Answers on {item.name}</legend>
          <div class="segments">
            {modes.map(([mode, label]) => (
              <label key={mode}>
                <input
                  type="radio"
                  name={`mode-${item.name}`}
                  value={mode}
                  checked={draft.mode === mode}
                  onChange={() => set("mode")(mode)}
                />
                {label}
              </label>
            ))}
          </div>
          <p class="soft small mode-meaning">{modes.find(([mode]) => mode === draft.mode)?.[2]}</p>
        </fieldset>
        {server && item.otherServers.length > 0 ? (
          <Trouble
            failure={{
              title: `Another DHCP server answers here: ${item.otherServers.join(", ")}.`,
              detail:
                "Two servers hand out addresses at random. Turn one off, or choose “Beside a DHCP server”.",
              code: undefined,
            }}
          />
        ) : null}
        {server ? (
          <div class="pair">
            <Field
              label="First address"
              name="first"
              value={draft.first}
              onInput={set("first")}
              wrong={wrong.first}
            />
            <Field
              label="Last address"
              name="last"
              value={draft.last}
              onInput={set("last")}
              wrong={wrong.last}
            />
            <Field
              label="Gateway"
              name="gateway"
              value={draft.gateway}
              onInput={set("gateway")}
              wrong={wrong.gateway}
              hint="May be empty."
            />
            <Field
              label="DNS servers"
              name="dns"
              value={draft.dns}
              onInput={set("dns")}
              wrong={wrong.dns}
              hint="May be empty."
            />
            <Field
              label="Lease, minutes"
              name="lease"
              value={draft.leaseMinutes}
              onInput={set("leaseMinutes")}
              wrong={wrong.lease}
            />
          </div>
        ) : null}
        {item.message === null ? null : <p class="soft">{item.message}</p>}
        {failure === undefined ? null : <Trouble failure={failure} />}
        {changed ? (
          <div class="actions">
            <button
              type="submit"
              class="button primary"
              disabled={busy || incomplete || Object.values(wrong).some(Boolean)}
            >
              {busy ? "Saving…" : `Save ${item.name}`}
            </button>
            <button
              type="button"
              class="button"
              onClick={() => {
                setEdits({});
                setFailure(undefined);
              }}
            >
              Undo
            </button>
          </div>
        ) : null}
      </div>
    </form>
  );
}
