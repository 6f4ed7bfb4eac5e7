/** Who gets a boot script: the machine it is for, and not its neighbour on the segment. */
import { bootAnswers } from "./boot-answers.ts";
import { expectEqual, expectMatch, expectTrue } from "./expect.ts";
import { netbootNode, nodeAddress } from "./netboot-node.ts";
import { httpCall } from "./node.ts";
import type { Suite } from "./suite.ts";

export const http: Suite = {
  name: "http",
  summary: "the boot script over HTTP: CHAP secrets go to the machine they are for",
  needs: ["dnsmasq"],
  async run(lab) {
    const answers = await bootAnswers(lab, {
      action: "san",
      portal: "0.0.0.0:3260",
      iqn: "iqn.2026-11.org.keelson:boot.a",
      lun: 0,
      initiatorIqn: "iqn.2026-11.org.keelson:client.a",
      chap: { user: "a", secret: "topsecret1234" },
    });
    const segment = await lab.segment();
    const mac = "02:00:00:00:02:01";
    const owner = await segment.host("owner", "10.77.0.50/24", mac);
    const neighbour = await segment.host("neighbour", "10.77.0.51/24", "02:00:00:00:02:02");
    const node = await netbootNode(lab, segment, {
      args: ["--no-dhcp", "--no-tftp", "--api-run", answers.folder],
    });
    const ask = { method: "GET", url: `http://${nodeAddress}/boot.ipxe?mac=${mac}` };

    await lab.test("the machine itself gets its script, for the address it reached", async () => {
      const { status, text } = await httpCall(owner, ask);
      expectEqual(status, 200, "status");
      expectMatch(text, /sanboot iscsi:10\.77\.0\.1::3260:0:iqn/, "the script");
    });

    await lab.test("another machine that names its MAC gets no secret", async () => {
      const { status, text } = await httpCall(neighbour, ask);
      expectEqual(status, 200, "status: iPXE shows nothing of any other");
      expectMatch(text, /This address belongs to 02:00:00:00:02:02/, "what its console shows");
      expectTrue(!text.includes("password") && !text.includes("sanboot"), text);
      expectEqual((await node.counters())["http.script.wrong-mac"], 1, "counted");
      expectEqual(answers.requests.length, 1, "questions to api");
    });

    await lab.test("port 80 in use is named at start", async () => {
      const error = await lab.service(node.host, "netboot", ["--no-dhcp", "--no-tftp"]).then(
        () => "it started",
        (cause: Error) => cause.message,
      );
      expectMatch(error, /Another program already uses port 80/, "the message");
    });

    await lab.test("a DHCP server that is there first is named in status", async () => {
      const host = await segment.host("occupied", "10.77.0.60/24");
      const first = host.spawn("dnsmasq", [
        ...["--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root"],
        ...["--dhcp-range=10.77.0.200,10.77.0.220,1h", "--dhcp-leasefile=/dev/null"],
      ]);
      await first.waitFor(/DHCP, IP range/, 10_000);
      const policy = {
        generation: 1,
        interfaces: [{ name: "eth0", mode: "proxy" }],
      };
      const other = await netbootNode(lab, segment, {
        host,
        policy,
        args: ["--no-http", "--no-tftp"],
      });
      const status = await other.get<{ interfaces: { problem?: string }[] }>("/v1/status");
      const problem = status.interfaces[0].problem ?? "none";
      expectMatch(problem, /Another program already uses port 67 on eth0/, "problem");
    });
  },
};
