/** The node's own networks: as they are, as they are set, and a change that takes itself back. */
import { useEffect, useRef } from "preact/hooks";
import type { Network } from "../../../services/api/network-schema.ts";
import { request } from "../../client.ts";
import { Fetching, OldAnswer } from "../../components/fetching.tsx";
import { Badge, PageHead, Panel, Trouble } from "../../components/parts.tsx";
import { now } from "../../components/time.tsx";
import { complain, say } from "../../components/toast.tsx";
import { useFetched } from "../../live/fetched.ts";
import { may } from "../../permission.ts";
import { formatList, formatNumber, t } from "../../words/words.ts";
import { FirewallPanel } from "./network-firewall.tsx";
import { NetworkForm } from "./network-form.tsx";

const pendingMs = 2000;

export function NetworkPage() {
  const network = useFetched<Network>("/network");
  const { value } = network;
  const pending = value?.pending ?? null;
  useEffect(() => {
    if (pending === null) return;
    const timer = setInterval(() => void network.reload(), pendingMs);
    return () => clearInterval(timer);
  }, [pending?.id]);
  return (
    <>
      <PageHead title={t("page.network")}>{t("network.lead")}</PageHead>
      {value === undefined ? (
        <Fetching of={network} />
      ) : (
        <>
          {pending === null ? (
            <OldAnswer of={network} />
          ) : (
            <Pending key={pending.id} pending={pending} onChanged={network.reload} />
          )}
          <Notices network={value} />
          <div class="grid">
            <LinksPanel network={value} />
            <FirewallPanel />
            <NetworkForm
              saved={value.config}
              links={value.links}
              locked={pending !== null || !may("network:write")}
              onTried={network.reload}
            />
          </div>
        </>
      )}
    </>
  );
}

interface PendingProps {
  readonly pending: NonNullable<Network["pending"]>;
  onChanged(): Promise<void>;
}

/** Counts down by itself: the node may be out of reach just now. */
function Pending({ pending, onChanged }: PendingProps) {
  const deadlineMs = useRef(0);
  deadlineMs.current = useDeadline(pending.secondsLeft);
  const left = Math.max(0, Math.round((deadlineMs.current - now.value) / 1000));
  const act = (what: "confirm" | "revert", said: string) => {
    request("POST", `/network/${what}`, { id: pending.id })
      .then(() => say(said))
      .then(onChanged)
      .catch(complain);
  };
  return (
    <section class="panel trial notice-gap" aria-label={t("network.pending")}>
      <div class="body">
        <h2>{t("network.pending")}</h2>
        <p role="timer" class="number">
          {t("network.pendingLead", { count: left })}
        </p>
        <p class="soft">{t(pending.applied ? "network.pendingHint" : "network.applying")}</p>
        {may("network:write") ? (
          <div class="actions">
            <button
              type="button"
              class="button primary"
              disabled={!pending.applied}
              onClick={() => act("confirm", t("network.kept"))}
            >
              {t("network.keep")}
            </button>
            <button
              type="button"
              class="button"
              onClick={() => act("revert", t("network.takenBack"))}
            >
              {t("network.takeBack")}
            </button>
          </div>
        ) : null}
      </div>
    </section>
  );
}

/** By this computer's clock; an answer of the node sets it right. */
function useDeadline(secondsLeft: number): number {
  const seen = useRef({ secondsLeft: -1, deadlineMs: 0 });
  if (seen.current.secondsLeft !== secondsLeft) {
    seen.current = { secondsLeft, deadlineMs: Date.now() + secondsLeft * 1000 };
  }
  return seen.current.deadlineMs;
}

function Notices({ network }: { network: Network }) {
  const { problems, differences, restartNeeded, lastChange } = network;
  const wrong = [
    ...problems.map(({ path, message }) => (path === "" ? message : `${path}: ${message}`)),
    ...differences.map(({ link, message }) => `${link}: ${message}`),
  ];
  const notices: [string, string][] = [
    ...(wrong.length === 0
      ? []
      : [[t("network.problem"), wrong.join(" ")] satisfies [string, string]]),
    ...(restartNeeded === null
      ? []
      : [[t("network.restart"), restartNeeded] satisfies [string, string]]),
    ...(lastChange?.outcome === "reverted" && network.pending === null
      ? [[t("network.lastReverted"), lastChange.reason] satisfies [string, string]]
      : []),
  ];
  return (
    <>
      {notices.map(([title, detail]) => (
        <div key={title} class="notice-gap">
          <Trouble failure={{ title, detail, code: undefined }} />
        </div>
      ))}
    </>
  );
}

function LinksPanel({ network: { links, roles } }: { network: Network }) {
  return (
    <Panel title={t("network.interfaces")} span={7} flush>
      {links.length === 0 ? (
        <p class="calm">{t("network.noLinks")}</p>
      ) : (
        <ul class="lines">
          {links.map((link) => (
            <li key={link.name}>
              <span class="grow">
                <span class="name">
                  {link.name} <Roles name={link.name} roles={roles} />
                </span>
                <span class="under wrap mono">
                  {link.addresses.length === 0
                    ? t("network.noAddress")
                    : link.addresses.map(({ address }) => address).join(", ")}
                </span>
                <span class="under wrap">{factsOf(link)}</span>
              </span>
              <Badge tone={link.carrier ? "good" : link.up ? "warn" : "idle"}>
                {t(
                  link.carrier ? "network.carrier" : link.up ? "network.noCarrier" : "network.down",
                )}
              </Badge>
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}

function Roles({ name, roles }: { name: string; roles: Network["roles"] }) {
  const played = (["lan", "backplane", "netboot"] as const).filter((role) => roles[role] === name);
  if (played.length === 0) return null;
  return <Badge tone="accent">{formatList(played.map((role) => t(`network.role.${role}`)))}</Badge>;
}

function factsOf(link: Network["links"][number]): string {
  const { bond, vlan } = link;
  return [
    link.mac,
    link.speedMbps === undefined ? "" : t("network.speed", { mbps: formatNumber(link.speedMbps) }),
    t("network.mtuOf", { mtu: String(link.mtu) }),
    bond === undefined
      ? ""
      : bond.activePort === undefined
        ? t("network.bondNone")
        : t("network.bondActive", { port: bond.activePort }),
    vlan === undefined ? "" : t("network.vlanOf", { id: String(vlan.id), parent: vlan.parent }),
    link.master === undefined ? "" : t("network.inBond", { bond: link.master }),
  ]
    .filter(Boolean)
    .join(" · ");
}
