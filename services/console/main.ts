/** keelson-console: every screen and serial line of this machine, as one console. */
import { readFileSync } from "node:fs";
import { runService } from "#lib/service/main.ts";
import { type Content, Line } from "./line.ts";
import { presentLines } from "./lines.ts";
import { startSetup } from "./setup.ts";
import { startStatus } from "./status.ts";

const usage = `Usage: keelson-console [options]

Shows the setup wizard (live medium) or the node's status and menus (installed node) on all
terminal lines, and takes keys from any of them.

  --line PATH       terminal to use, repeatable (default: tty1 to tty3, serial ports, hvc)
  --setup           the wizard; default where the kernel line has keelson.live
  --installer PATH  the installer's socket (default /run/keelson-installer/api.sock)
  --state DIR       where node.json is (default /var/lib/keelson)
  --run DIR         where the services' sockets are (default /run/keelson)
  --help`;

await runService({
  name: "keelson-console",
  usage,
  options: {
    line: { type: "string", multiple: true },
    setup: { type: "boolean", default: false },
    installer: { type: "string", default: "/run/keelson-installer/api.sock" },
    state: { type: "string", default: "/var/lib/keelson" },
    run: { type: "string", default: "/run/keelson" },
  },
  async start({ values, log }) {
    const live = / keelson\.live( |$)/.test(` ${readFileSync("/proc/cmdline", "utf8").trim()}`);
    const paths = values.line ?? presentLines();
    const lines: Line[] = [];
    let shown: Content | undefined;
    const screen = {
      show: (content: Content) => {
        shown = content;
        for (const line of lines) line.show(content);
      },
    };
    const on = (path: string) => lines.find((line) => line.path === path);
    const setup = live || values.setup;
    const program = setup
      ? startSetup(values.installer, screen)
      : startStatus(
          {
            ...{ run: values.run, state: values.state, log },
            release: (path) => on(path)?.release(),
            take: (path) => on(path)?.take(),
          },
          screen,
        );
    for (const path of paths) {
      const line = new Line({ path, onKey: (key) => program.onKey(key, path) });
      lines.push(line);
      if (shown !== undefined) line.show(shown);
    }
    log.info("ready", { lines: paths.join(" "), setup });
    return {
      status: `on ${paths.join(", ")}`,
      async stop() {
        await program.stop();
        for (const line of lines) line.close();
      },
    };
  },
});
