/** `keelson` against one node's real services, as `npm run dev` starts them. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { unixFetch } from "#lib/rpc/client.ts";
import type { BootAnswer } from "#services/api/boot-schema.ts";
import type {
  BootEntry,
  Client,
  Export,
  ExportCreated,
  Image,
  Volume,
} from "#services/api/schema.ts";
import { type Outcome, spawnKeelson } from "./run.fixture.ts";

const root = join(import.meta.dirname, "..");
const directory = mkdtempSync(join(tmpdir(), "keelson-cli-"));
const state = join(directory, "node");
const mac = "52:54:00:00:00:01";

interface Ready {
  readonly http: string;
  readonly iscsi: { readonly portal: string };
  readonly pids: Record<string, number>;
}

/** Secrets that were handed out. */
const planted: string[] = [];
let node: ChildProcess;
let ready: Ready;

function run(args: readonly string[], input = "", environment = {}): Promise<Outcome> {
  return spawnKeelson(args, input, {
    XDG_CONFIG_HOME: join(directory, "config"),
    KEELSON_SERVER: "",
    KEELSON_TOKEN: "",
    ...environment,
  });
}

async function keelson(...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(args);
  expect(status, `keelson ${args.join(" ")}: ${stderr}`).toBe(0);
  return stdout;
}

async function document<Value>(...args: string[]): Promise<Value> {
  return JSON.parse(await keelson(...args, "--json")) as Value;
}

async function refused(status: number, message: RegExp, ...args: string[]): Promise<void> {
  const outcome = await run(args);
  expect(outcome.stderr).toMatch(message);
  expect(outcome.stderr.split("\n")).toHaveLength(2);
  expect(outcome.stdout).toBe("");
  expect(outcome.status).toBe(status);
}

function qemuImg(...args: string[]): void {
  const { status, stderr } = spawnSync("qemu-img", args, { encoding: "utf8" });
  expect(status, stderr).toBe(0);
}

beforeAll(async () => {
  node = spawn(
    process.execPath,
    [join(root, "tools/dev.ts"), "--json", "--state", state, "--store-size", "2G"],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let text = "";
  ready = await new Promise((resolve, reject) => {
    node.once("exit", (status) => reject(new Error(`npm run dev ended with ${status}`)));
    node.stdout!.setEncoding("utf8").on("data", (part: string) => {
      text += part;
      if (text.includes("\n")) resolve(JSON.parse(text) as Ready);
    });
  });
});

afterAll(async () => {
  if (node !== undefined && node.exitCode === null) {
    const ended = new Promise((resolve) => node.once("exit", resolve));
    node.kill("SIGTERM");
    await ended;
  }
  rmSync(directory, { recursive: true });
});

describe("log-in", () => {
  test("before it, a command says how to", async () => {
    await refused(1, /Log in with: keelson login/, "node");
  });

  test("a wrong password is refused; the right one is remembered in a file of one's own", async () => {
    const password = readFileSync(join(state, "admin-password"), "utf8");
    const login = ["login", ready.http, "--password-stdin"];
    const wrong = await run(login, "guess\n");
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).toBe("keelson: Wrong user name or password.\n");
    expect((await run(login, password)).status).toBe(0);
    const file = join(directory, "config", "keelson", "session.json");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file, "utf8")).not.toContain(password.trim());
  });

  test("a token from the environment is used, a wrong one refused", async () => {
    const wrong = await run(["node"], "", {
      KEELSON_SERVER: ready.http,
      KEELSON_TOKEN: "x".repeat(43),
    });
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).toMatch(/has ended/);
  });
});

test("in development the machine's own networks are left alone, and that is said", async () => {
  await refused(1, /does not set up its own networks\. An installed node does/, "network");
  await refused(2, /soon is not a number of seconds/, "network", "set", "x", "--within", "soon");
  await refused(1, /nowhere\.json can't be read/, "network", "set", "nowhere.json");
});

describe("used wrongly", () => {
  test.each([
    [["frobnicate"], /Unknown command 'frobnicate'/],
    [["volumes", "create"], /Missing required argument 'name'/],
    [["volumes", "create", "x"], /How large\?/],
    [["volumes", "create", "x", "10 parsecs"], /is not a size/],
    [["--nonsense"], /Unknown option '--nonsense'/],
    [["completion", "tcsh"], /no completion for tcsh/],
    [["login", "ftp://x"], /is not a server's address/],
  ])("keelson %j", async (args, message) => {
    await refused(2, message, ...args);
  });

  test("every command has help with a description", async () => {
    for (const command of [
      "",
      "login",
      "node",
      "volumes",
      "images",
      "boot",
      "clients",
      "exports",
      "conditions",
      "tasks",
      "netboot",
      "network",
    ]) {
      const help = await keelson(...(command === "" ? [] : [command]), "--help");
      expect(help, command).toMatch(/^Usage: keelson/);
    }
  });
});

describe("volumes", () => {
  test("create, list, grow, refuse to shrink, delete", async () => {
    await keelson("volumes", "create", "scratch", "64M");
    await refused(1, /scratch exists already/, "volumes", "create", "scratch", "64M");
    const [volume] = await document<Volume[]>("volumes");
    expect(volume).toMatchObject({ name: "scratch", state: "ready", sizeBytes: 64 << 20 });
    await keelson("volumes", "resize", "scratch", "128M");
    await refused(2, /only grows/, "volumes", "resize", "scratch", "64M");
    expect(await keelson("volumes")).toMatch(/scratch\s+plain\s+ready\s+128 MiB/);
    await keelson("volumes", "delete", volume.id.slice(0, 8));
    expect(await keelson("volumes")).toBe("No volumes.\n");
    await refused(1, /There is no volume scratch/, "volumes", "delete", "scratch");
  });
});

describe("images", () => {
  const file = (name: string) => join(directory, name);

  test("a qcow2 is imported bit for bit, thin, and sealed", async () => {
    writeFileSync(file("pattern"), Buffer.alloc(3 << 20, "keelson "));
    truncateSync(file("pattern"), 32 << 20);
    qemuImg("convert", "-f", "raw", "-O", "qcow2", file("pattern"), file("disk.qcow2"));
    await keelson("images", "import", file("disk.qcow2"), "--name", "debian");
    const [image] = await document<Image[]>("images");
    expect(image).toMatchObject({ state: "ready", format: "qcow2", sizeBytes: 32 << 20 });
    const [volume] = await document<Volume[]>("volumes");
    expect(volume).toMatchObject({ kind: "image", readOnly: true });
    expect(volume.allocatedBytes).toBeLessThan(4 << 20);
    await refused(1, /belongs to an image/, "volumes", "delete", volume.id);
    const store = unixFetch(join(state, "run", "chunk-store", "api.sock"));
    const grant = await store(`http://unix/v1/volumes/${volume.id}/nbd-grants`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ readOnly: true }),
    });
    const { uri } = (await grant.json()) as { uri: string };
    qemuImg("compare", "-f", "raw", "-F", "raw", file("pattern"), uri);
  });

  test("a raw file whose size is no multiple of a block is rounded up", async () => {
    writeFileSync(file("odd.img"), Buffer.alloc((1 << 20) + 512, 7));
    await keelson("images", "import", file("odd.img"));
    const odd = (await document<Image[]>("images")).find(({ name }) => name === "odd");
    expect(odd).toMatchObject({ format: "raw", sizeBytes: (1 << 20) + 4096 });
    await keelson("images", "delete", "odd");
  });

  const bad: [string, () => void, RegExp][] = [
    [
      "with a backing file",
      () => qemuImg("create", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", file("bad"), "1M"),
      /has a backing file/,
    ],
    [
      "with an external data file",
      () =>
        qemuImg("create", "-f", "qcow2", "-o", `data_file=${file("outside")}`, file("bad"), "1M"),
      /keeps its data in another file/,
    ],
    ["that was cut short", () => truncateSync(file("bad"), 200 << 10), /is damaged/],
    ["that is empty", () => writeFileSync(file("bad"), ""), /is empty/],
    [
      "that is compressed",
      () => writeFileSync(file("bad"), "\x1f\x8b rest", "latin1"),
      /Unpack it/,
    ],
    [
      "larger than any volume",
      () => {
        writeFileSync(file("bad"), Buffer.alloc(1 << 20, 1));
        qemuImg("convert", "-f", "raw", "-O", "qcow2", file("bad"), file("grown"));
        qemuImg("resize", "-f", "qcow2", file("grown"), "128T");
        rmSync(file("bad"));
        spawnSync("mv", [file("grown"), file("bad")]);
      },
      /larger than 64 TiB/,
    ],
  ];
  test.each(bad)(
    "an image %s is refused with the reason and leaves nothing",
    async (name, make, message) => {
      rmSync(file("bad"), { force: true });
      if (name === "that was cut short") {
        qemuImg("convert", "-f", "raw", "-O", "qcow2", file("pattern"), file("bad"));
      }
      make();
      const outcome = await run(["images", "import", file("bad"), "--name", "bad"]);
      expect(outcome.status).toBe(1);
      expect(outcome.stderr).toMatch(message);
      const images = await document<Image[]>("images");
      expect(images.map((image) => image.name)).toEqual(["debian"]);
      await expect.poll(async () => (await document<Volume[]>("volumes")).length).toBe(1);
      expect(spawnSync("ls", [join(state, "api", "spool")], { encoding: "utf8" }).stdout).toBe("");
    },
    60_000,
  );
});

describe("boot", () => {
  const internal = unixFetch(join(state, "run", "api", "internal.sock"));
  const ask = async (body: object): Promise<BootAnswer> => {
    const answer = await internal("http://unix/v1/boot", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return (await answer.json()) as BootAnswer;
  };
  const inquire = (initiator: string, userInfo: string, iqn: string) =>
    spawnSync("iscsi-inq", ["-i", initiator, `iscsi://${userInfo}${ready.iscsi.portal}/${iqn}/0`], {
      encoding: "utf8",
      timeout: 20_000,
    });

  test("an entry's first boot makes its clone, and only its initiator with its secret reaches it", async () => {
    await keelson("boot", "add", "lab-01", "--mac", mac, "--image", "debian");
    await refused(
      1,
      /MAC address .* exists/,
      "boot",
      "add",
      "two",
      "--mac",
      mac,
      "--image",
      "debian",
    );
    await refused(2, /not a MAC address/, "boot", "add", "two", "--mac", "zz", "--image", "debian");
    expect((await document<BootEntry[]>("boot"))[0].cloneState).toBe("none");

    // Two requests at once, as an impatient loader sends them: one clone.
    const [answer, again] = await Promise.all([ask({ mac, arch: 0 }), ask({ mac, arch: 0 })]);
    expect(answer).toMatchObject({ action: "san", lun: 0 });
    expect(again).toEqual(answer);
    if (answer.action !== "san") throw new Error("not reached");
    expect(answer.chap.secret).toMatch(/^[A-Za-z0-9]{24}$/);
    expect(answer.portal).toBe(`0.0.0.0:${ready.iscsi.portal.split(":")[1]}`);
    const clones = (await document<Volume[]>("volumes")).filter(({ kind }) => kind === "client");
    expect(clones).toHaveLength(1);
    planted.push(answer.chap.secret);
    expect(await keelson("boot", "--json")).not.toContain(answer.chap.secret);

    const { user, secret } = answer.chap;
    const good = inquire(answer.initiatorIqn, `${user}%${secret}@`, answer.iqn);
    expect(good.status, good.stderr + good.stdout).toBe(0);
    expect(inquire(answer.initiatorIqn, `${user}%${secret}x@`, answer.iqn).status).not.toBe(0);
    expect(
      inquire("iqn.2026-11.org.example:other", `${user}%${secret}@`, answer.iqn).status,
    ).not.toBe(0);
    expect(inquire(answer.initiatorIqn, "", answer.iqn).status).not.toBe(0);
  });

  test("its log-ins at the target are seen as stages", async () => {
    await expect
      .poll(async () => (await document<Client[]>("clients"))[0].stages.map(({ stage }) => stage))
      .toContain("san");
  });

  test("a client that nobody named is told so, and is listed", async () => {
    const answer = await ask({ mac: "52:54:00:00:00:99" });
    expect(answer).toMatchObject({ action: "unknown" });
    const clients = await keelson("clients");
    expect(clients).toMatch(/52:54:00:00:00:99\s+unknown\s+script/);
    expect(clients).toMatch(/No boot entry names this client/);
  });

  test("watch prints a stage as it is reached", async () => {
    const watching = spawn(process.execPath, [join(root, "cli/main.ts"), "clients", "watch"], {
      env: { ...process.env, NODE_NO_WARNINGS: "1", XDG_CONFIG_HOME: join(directory, "config") },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let lines = "";
    watching.stdout.setEncoding("utf8").on("data", (text: string) => {
      lines += text;
    });
    try {
      await expect.poll(() => lines).toContain(mac);
      await internal("http://unix/v1/clients/stages", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ mac: "52:54:00:00:00:77", stage: "loader", detail: "ipxe.efi" }),
      });
      await expect
        .poll(() => lines)
        .toMatch(/52:54:00:00:00:77 {2}unknown {2}loader \(ipxe\.efi\)/);
    } finally {
      const ended = new Promise((resolve) => watching.once("exit", resolve));
      watching.kill("SIGINT");
      expect(await ended).toBe(0);
    }
  });

  test("api is killed between boots: the clone and its secret stay the same", async () => {
    const before = await ask({ mac });
    process.kill(ready.pids.api, "SIGKILL");
    await expect.poll(() => ask({ mac }).catch(() => null), { interval: 300 }).toEqual(before);
    // The session outlasts it too.
    await keelson("node");
  });

  test("reset gives a new clone at the next boot; removal deletes it; the image is free then", async () => {
    await refused(1, /used by lab-01/, "images", "delete", "debian");
    const before = (await document<BootEntry[]>("boot"))[0].cloneVolumeId;
    await keelson("boot", "reset", "lab-01");
    expect(await ask({ mac })).toMatchObject({ action: "san" });
    const after = (await document<BootEntry[]>("boot"))[0].cloneVolumeId;
    expect(after).not.toBe(before);
    await keelson("boot", "remove", "lab-01");
    expect(await ask({ mac })).toMatchObject({ action: "unknown" });
    await keelson("images", "delete", "debian");
    await expect
      .poll(async () => await document<Volume[]>("volumes"), { interval: 500 })
      .toEqual([]);
  });
});

describe("exports", () => {
  test("the secret is shown once, and opens the volume to the named initiator only", async () => {
    await keelson("volumes", "create", "data", "64M");
    const initiator = "iqn.1993-08.org.debian:01:abc";
    const created = await document<ExportCreated>(
      ...["exports", "create", "shared", "data", "--initiator", initiator],
    );
    const secret = created.chapSecret ?? "";
    planted.push(secret);
    expect(secret).toHaveLength(24);
    expect(await keelson("exports", "--json")).not.toContain(secret);
    await expect.poll(async () => (await document<Export[]>("exports"))[0].state).toBe("ready");
    const inquire = (name: string) =>
      spawnSync(
        "iscsi-inq",
        [
          "-i",
          name,
          `iscsi://${created.chapUser}%${secret}@${ready.iscsi.portal}/${created.targetIqn}/0`,
        ],
        { encoding: "utf8", timeout: 20_000 },
      ).status;
    expect(inquire(initiator)).toBe(0);
    const other = "iqn.1993-08.org.debian:01:other";
    expect(inquire(other)).not.toBe(0);
    await keelson("exports", "allow", "shared", other);
    expect(inquire(other)).toBe(0);
    expect(inquire(initiator)).not.toBe(0);
    await refused(1, /exported as shared/, "volumes", "delete", "data");
    await keelson("exports", "delete", "shared");
    await keelson("volumes", "delete", "data");
  });
});

describe("conditions", () => {
  test("a service that is killed for a while is one, and isn't one afterwards", async () => {
    process.kill(ready.pids.netboot, "SIGSTOP");
    try {
      await expect
        .poll(async () => await keelson("conditions"), { interval: 1000 })
        .toMatch(/SERVICE_UNREACHABLE:netboot/);
    } finally {
      process.kill(ready.pids.netboot, "SIGCONT");
    }
    await expect
      .poll(async () => await keelson("conditions"), { interval: 1000 })
      .not.toMatch(/SERVICE_UNREACHABLE:netboot/);
  });
});

describe("completion", () => {
  test("of commands, options and today's names", async () => {
    await keelson("volumes", "create", "alpha", "1M");
    expect((await keelson("__complete", "--", "vol")).split("\n")).toContain("volumes");
    expect(await keelson("__complete", "--", "volumes", "delete", "a")).toBe("alpha\n");
    expect(await keelson("__complete", "--", "images", "import", "--na")).toBe("--name\n");
    await keelson("volumes", "delete", "alpha");
  });

  test.each(["bash", "zsh"])("the script for %s is one that it can read", async (shell) => {
    const script = await keelson("completion", shell);
    expect(script).toContain("keelson __complete");
    if (spawnSync("which", [shell]).status !== 0) return;
    expect(spawnSync(shell, ["-n"], { input: script }).status).toBe(0);
  });
});

describe("secrets at rest", () => {
  test("of exports and boots stand nowhere under the state directories, nor in a log", () => {
    expect(planted.length).toBeGreaterThan(1);
    const files = readdirSync(state, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name !== "store.img")
      .map((entry) => join(entry.parentPath, entry.name));
    expect(files.length).toBeGreaterThan(8);
    expect(files.some((path) => path.endsWith("exports.json"))).toBe(true);
    expect(files.some((path) => path.endsWith(".log"))).toBe(true);
    const holding = files.filter((path) => {
      // The store's device: what clients wrote, many times larger than the rest together.
      if (statSync(path).size > 64 << 20) return false;
      const content = readFileSync(path);
      return planted.some((secret) => content.includes(secret));
    });
    expect(holding).toEqual([]);
  });
});

test("log-out forgets the token", async () => {
  await keelson("logout");
  await refused(1, /Not logged in/, "node");
});
