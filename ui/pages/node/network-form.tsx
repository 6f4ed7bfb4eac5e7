/** LAN, backplane and bonds in a form. What is wrong is said by api, with its place. */
import { useState } from "preact/hooks";
import type { Network } from "../../../services/api/network-schema.ts";
import { asFailure, type Failure, request } from "../../client.ts";
import { Checks } from "../../components/checks.tsx";
import { Field, Select } from "../../components/field.tsx";
import { Icon } from "../../components/icon.tsx";
import { Panel, RowAction, Trouble } from "../../components/parts.tsx";
import { Segments } from "../../components/segments.tsx";
import { say } from "../../components/toast.tsx";
import { t } from "../../words/words.ts";
import {
  type BondDraft,
  configOf,
  draftOf,
  freeBondName,
  type NetworkConfig,
  type NetworkDraft,
} from "./network-draft.ts";

const confirmWithinSeconds = 60;

interface FormProps {
  readonly saved: NetworkConfig;
  readonly links: Network["links"];
  /** A change is tried already, or the account may not. */
  readonly locked: boolean;
  onTried(): Promise<void>;
}

interface PartProps {
  readonly draft: NetworkDraft;
  /** Names of ports. */
  readonly ports: readonly string[];
  set(draft: NetworkDraft): void;
}

export function NetworkForm({ saved, links, locked, onTried }: FormProps) {
  const [edited, setEdited] = useState<NetworkDraft>();
  const [failure, setFailure] = useState<Failure>();
  const [busy, setBusy] = useState(false);
  const draft = edited ?? draftOf(saved);
  const changed = JSON.stringify(draft) !== JSON.stringify(draftOf(saved));
  const ports = links.filter(({ kind }) => kind === "port").map(({ name }) => name);
  const part: PartProps = { draft, ports, set: setEdited };
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (busy || locked || !changed) return;
    setBusy(true);
    setFailure(undefined);
    try {
      await request("POST", "/network/apply", {
        config: configOf(draft, saved),
        confirmWithinSeconds,
      });
      say(t("network.tried"));
      setEdited(undefined);
      await onTried();
    } catch (error) {
      setFailure(asFailure(error));
    }
    setBusy(false);
  };
  return (
    <Panel title={t("network.settings")} span={12}>
      <form onSubmit={submit} noValidate aria-label={t("network.settings")}>
        <fieldset class="network-form" disabled={locked}>
          <LanPart {...part} />
          <BackplanePart {...part} />
          <BondsPart {...part} />
        </fieldset>
        {failure === undefined ? null : <Trouble failure={failure} />}
        {changed && !locked ? (
          <div class="actions meter-gap">
            <button type="submit" class="button primary" disabled={busy}>
              {t("network.apply")}
            </button>
            <button
              type="button"
              class="button"
              onClick={() => {
                setEdited(undefined);
                setFailure(undefined);
              }}
            >
              {t("network.undo")}
            </button>
            <span class="soft small middle">
              {t("network.applyHint", { count: confirmWithinSeconds })}
            </span>
          </div>
        ) : null}
      </form>
    </Panel>
  );
}

/** What may be chosen, with what is set even if it isn't there now. */
function interfaceOptions(
  { ports, draft }: PartProps,
  special: readonly (readonly [string, string])[],
  current: string,
) {
  const names = [...draft.bonds.map(({ name }) => name), ...ports].filter(Boolean);
  const options = [
    ...special.map(([value, label]) => ({ value, label })),
    ...names.map((name) => ({ value: name, label: name })),
  ];
  return options.some(({ value }) => value === current)
    ? options
    : [...options, { value: current, label: current }];
}

function LanPart(props: PartProps) {
  const { draft, set } = props;
  const { lan } = draft;
  const change = (fields: Partial<NetworkDraft["lan"]>) =>
    set({ ...draft, lan: { ...lan, ...fields } });
  return (
    <section aria-label={t("network.lan")}>
      <h3>{t("network.lan")}</h3>
      <div class="pair">
        <Select
          label={t("network.interface")}
          name="lan-interface"
          value={lan.interface}
          options={interfaceOptions(props, [["first", t("network.first")]], lan.interface)}
          onChange={(value) => change({ interface: value })}
        />
        <Field
          label={t("network.vlan")}
          name="lan-vlan"
          value={lan.vlan}
          hint={t("network.vlanHint")}
          inputMode="numeric"
          onInput={(vlan) => change({ vlan })}
        />
        <Field
          label={t("network.mtu")}
          name="lan-mtu"
          value={lan.mtu}
          hint={t("network.mtuHint")}
          inputMode="numeric"
          onInput={(mtu) => change({ mtu })}
        />
      </div>
      <div class="network-how">
        <Segments
          legend={t("network.how")}
          name="lan-how"
          value={lan.dhcp ? "dhcp" : "static"}
          onChange={(value) => change({ dhcp: value === "dhcp" })}
          options={[
            ["dhcp", t("network.dhcp")],
            ["static", t("network.static")],
          ]}
        />
      </div>
      <div class="pair">
        {lan.dhcp ? null : (
          <>
            <Field
              label={t("network.address")}
              name="lan-address"
              value={lan.address}
              hint={t("network.addressHint")}
              onInput={(address) => change({ address })}
            />
            <Field
              label={t("network.gateway")}
              name="lan-gateway"
              value={lan.gateway}
              onInput={(gateway) => change({ gateway })}
            />
          </>
        )}
        <Field
          label={t("network.dns")}
          name="lan-dns"
          value={lan.dns}
          hint={t("network.dnsHint")}
          onInput={(dns) => change({ dns })}
        />
      </div>
    </section>
  );
}

function BackplanePart(props: PartProps) {
  const { draft, set } = props;
  const { backplane } = draft;
  const change = (fields: Partial<NetworkDraft["backplane"]>) =>
    set({ ...draft, backplane: { ...backplane, ...fields } });
  return (
    <section aria-label={t("network.backplane")}>
      <h3>{t("network.backplane")}</h3>
      <label class="check">
        <input
          type="checkbox"
          checked={backplane.on}
          onChange={(event) => change({ on: event.currentTarget.checked })}
        />
        <span>
          {t("network.hasBackplane")}
          <span class="under wrap">{t("network.backplaneHint")}</span>
        </span>
      </label>
      {backplane.on ? (
        <div class="pair meter-gap">
          <Select
            label={t("network.interface")}
            name="backplane-interface"
            value={backplane.interface}
            options={interfaceOptions(props, [["lan", t("network.lanPort")]], backplane.interface)}
            onChange={(value) => change({ interface: value })}
          />
          <Field
            label={t("network.vlan")}
            name="backplane-vlan"
            value={backplane.vlan}
            hint={t("network.vlanHint")}
            inputMode="numeric"
            onInput={(vlan) => change({ vlan })}
          />
          <Field
            label={t("network.address")}
            name="backplane-address"
            value={backplane.address}
            hint={t("network.addressHint")}
            onInput={(address) => change({ address })}
          />
          <Field
            label={t("network.mtu")}
            name="backplane-mtu"
            value={backplane.mtu}
            hint={t("network.mtuHint")}
            inputMode="numeric"
            onInput={(mtu) => change({ mtu })}
          />
        </div>
      ) : null}
    </section>
  );
}

function BondsPart({ draft, ports, set }: PartProps) {
  const setBonds = (bonds: readonly BondDraft[]) => set({ ...draft, bonds });
  const change = (index: number, fields: Partial<BondDraft>) =>
    setBonds(draft.bonds.map((bond, at) => (at === index ? { ...bond, ...fields } : bond)));
  return (
    <section aria-label={t("network.bonds")}>
      <h3>{t("network.bonds")}</h3>
      {draft.bonds.map((bond, index) => (
        <fieldset key={index} class="bond">
          <legend>{t("network.bond", { name: bond.name })}</legend>
          <RowAction
            icon="trash"
            danger
            label={t("network.removeBond", { name: bond.name })}
            onClick={() => setBonds(draft.bonds.filter((_, at) => at !== index))}
          />
          <div class="pair">
            <Field
              label={t("network.bondName")}
              name={`bond-name-${index}`}
              value={bond.name}
              onInput={(name) => change(index, { name })}
            />
            <Select
              label={t("network.bondPrimary")}
              name={`bond-primary-${index}`}
              value={bond.primary}
              options={[
                { value: "", label: t("network.primaryFirst") },
                ...bond.ports.map((port) => ({ value: port, label: port })),
              ]}
              onChange={(primary) => change(index, { primary })}
            />
          </div>
          <Checks
            legend={t("network.bondPorts")}
            options={[...new Set([...ports, ...bond.ports])].map((value) => ({ value }))}
            value={bond.ports}
            onChange={(chosen) =>
              change(index, {
                ports: chosen,
                primary: chosen.includes(bond.primary) ? bond.primary : "",
              })
            }
          />
          <p class="soft small">{t("network.bondPortsHint")}</p>
        </fieldset>
      ))}
      <button
        type="button"
        class="button small"
        onClick={() =>
          setBonds([...draft.bonds, { name: freeBondName(draft.bonds), ports: [], primary: "" }])
        }
      >
        <Icon name="plus" />
        {t("network.addBond")}
      </button>
    </section>
  );
}
