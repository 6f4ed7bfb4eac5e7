import type { Firewall } from "../../../services/api/network-schema.ts";
import { Fetching } from "../../components/fetching.tsx";
import { Badge, Panel } from "../../components/parts.tsx";
import { useFetched } from "../../live/fetched.ts";
import { formatList, t } from "../../words/words.ts";

/** What is open, to whom, and why. */
export function FirewallPanel() {
  const firewall = useFetched<Firewall>("/network/firewall");
  const { value } = firewall;
  return (
    <Panel
      title={t("network.firewall")}
      span={5}
      flush
      aside={
        value === undefined ? undefined : (
          <Badge tone={value.active ? "good" : "bad"}>
            {t(value.active ? "network.firewallOn" : "network.firewallOff")}
          </Badge>
        )
      }
    >
      {value === undefined ? <Fetching of={firewall} /> : <OpenPorts firewall={value} />}
    </Panel>
  );
}

function OpenPorts({ firewall: { open, failure } }: { firewall: Firewall }) {
  const reachable = open.filter(({ interfaces }) => interfaces === null || interfaces.length > 0);
  return (
    <>
      <p class="soft panel-lead">{t("network.firewallLead")}</p>
      {failure === null ? null : <p class="bad-text panel-lead">{failure}</p>}
      {reachable.length === 0 ? (
        <p class="calm">{t("network.nothingOpen")}</p>
      ) : (
        <ul class="lines tight">
          {reachable.map((port) => (
            <li key={`${port.service} ${port.protocol} ${port.port}`}>
              <span class="port mono">
                {t("network.open", { protocol: port.protocol, port: String(port.port) })}
              </span>
              <span class="grow">
                <span class="name wrap">{port.why}</span>
                <span class="under wrap">
                  {t("network.openOn", {
                    service: port.service,
                    networks:
                      port.interfaces === null
                        ? t("network.everywhere")
                        : formatList(port.networks),
                  })}
                </span>
              </span>
            </li>
          ))}
        </ul>
      )}
    </>
  );
}
