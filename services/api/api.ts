/** The service: its parts joined, its state read, its sockets opened. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { bad, type Checked, good, unobserved } from "#lib/aime/checked.ts";
import { openClusterStore } from "#lib/cluster-store/open.ts";
import type { ClusterStore } from "#lib/cluster-store/store.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import { hashPassword, parsePasswordHash } from "#lib/password/password.ts";
import { serveUnix } from "#lib/rpc/serve.ts";
import type { SecretBox } from "#lib/seal/secret-box.ts";
import { loadSecretKey } from "#lib/seal/secret-key.ts";
import type { Log } from "#lib/service/log.ts";
import type { SessionsView } from "#services/iscsi-target/schema.ts";
import { Sessions } from "./access.ts";
import { newUser } from "./account-records.ts";
import { accountDocuments, isAccountResource } from "./account-views.ts";
import { Accounts } from "./accounts.ts";
import { createApp } from "./app.ts";
import { Audit } from "./audit.ts";
import { Changes } from "./changes.ts";
import { ClientRegistry } from "./clients.ts";
import { type Clock, systemClock } from "./clock.ts";
import { ConditionBoard, judgeAll } from "./conditions.ts";
import { consoleNames, defaultConsoleUrl } from "./console-address.ts";
import { createConsoleApp } from "./console-door.ts";
import { DiskExports } from "./disk-exports.ts";
import { Downloads } from "./downloads.ts";
import { EventHub } from "./events.ts";
import { type DeliveryPace, HeadDelivery } from "./head-delivery.ts";
import { Idempotency } from "./idempotency.ts";
import { createIdentityLogIn } from "./identity-log-in.ts";
import { ImageImports } from "./image-import.ts";
import { createInternalApp } from "./internal.ts";
import { Journal } from "./journal.ts";
import { type Endpoint, listen } from "./listener.ts";
import { LogIns } from "./log-in.ts";
import { LogInDevices } from "./log-in-device.ts";
import { netbootConfig, netbootInterfaces } from "./netboot-policy.ts";
import { readAddresses, readClockState, readIdentity, readNetbootDefault } from "./node.ts";
import { NodeNetworkPeer } from "./node-network.ts";
import { connectPeers, type TargetPeer } from "./peers.ts";
import { adminRole } from "./permissions.ts";
import { Policy } from "./policy.ts";
import { settlePolicyFormat } from "./policy-format.ts";
import { Reconciler } from "./reconciler.ts";
import { RecordSeal } from "./record-seal.ts";
import { ScheduleRunner } from "./schedule-runner.ts";
import { Schedules } from "./schedules.ts";
import { accountResources, eventResources } from "./schema.ts";
import { SnapshotViews } from "./snapshot-views.ts";
import { SnapshotCalls, Snapshots } from "./snapshots.ts";
import { TaskList } from "./tasks.ts";
import { TlsCertificates } from "./tls.ts";
import { Tokens } from "./tokens.ts";
import { TotpFactors } from "./totp.ts";
import { Upgrades } from "./upgrades.ts";
import { Views } from "./views.ts";

export type { ConsoleApi } from "./console-door.ts";

export interface ApiOptions {
  readonly state: string;
  readonly run: string;
  readonly https: Endpoint | null;
  readonly http: Endpoint | null;
  readonly peers: {
    readonly store: string;
    readonly iscsi: string;
    readonly netboot: string;
    readonly network: string;
    readonly updater: string;
  };
  readonly clusterStore: string;
  readonly ui: string | null;
  readonly spool: string;
  readonly portalAddress: string;
  readonly adminHashFile: string | null;
  /** The key that secrets are sealed with; undefined: a file in `state`, made at the first start. */
  readonly secretKey?: string | undefined;
  readonly log: Log;
  readonly clock?: Clock;
  /** Of the audit log's heads, for tests. */
  readonly headPace?: DeliveryPace | undefined;
}

export interface Api {
  readonly addresses: Record<string, string>;
  close(): Promise<void>;
}

const watchRetryMs = 1_000;
const openRetryMs = 1_000;
const openAttempts = 60;

export async function startApi(options: ApiOptions): Promise<Api> {
  const { log } = options;
  const clock = options.clock ?? systemClock;
  if (options.http === null && options.https === null) {
    throw new KeelsonError("INVALID_ARGUMENT", "Nowhere to listen.", {
      remedy: "Give --https HOST:PORT, or --http HOST:PORT for development.",
    });
  }
  mkdirSync(options.state, { recursive: true, mode: 0o700 });
  const store = openClusterStore(options.clusterStore);
  const held = new HeldFormatsFile();
  const secretKey = loadSecretKey(options.secretKey, options.state);
  const { box } = secretKey;
  const policy = await openPolicy(store, new RecordSeal(box), held, log);
  const sealed = await policy.sealPlain();
  if (sealed > 0) log.info("secrets of an older release sealed", { records: sealed });
  for (const { kind, id, why } of policy.locked()) {
    log.error("a secret can't be opened", { kind, id, why });
  }
  const forgetFormats = held.onChange(() => {
    settlePolicyFormat(store, held).catch((error) =>
      log.error("policy keeps its format", { why: explainError(error) }),
    );
  });
  const journal = new Journal(join(options.state, "journal.sqlite"));
  await ensureAdmin(policy, clock, options.adminHashFile, log);

  const identity = readIdentity();
  const netbootDefault = readNetbootDefault();
  const interfaces = () => netbootInterfaces(policy, readAddresses(), netbootDefault);
  const netbootWanted = () =>
    existsSync(options.peers.netboot) ||
    interfaces().some(({ settings }) => settings.mode !== "off");
  const peers = connectPeers(options.peers);
  const nodeNetwork = new NodeNetworkPeer(options.peers.network, clock);
  const clients = new ClientRegistry(clock);
  const tasks = new TaskList(clock, journal);
  const conditions = new ConditionBoard(clock);
  const upgrades = new Upgrades(options.peers.updater);
  const calls = new SnapshotCalls();
  const reconciler = new Reconciler({
    policy,
    peers,
    clock,
    log,
    snapshotCalls: calls,
    netbootInterfaces: () => netbootConfig(interfaces()),
  });
  const imports = new ImageImports({
    policy,
    reconciler,
    store: peers.store,
    tasks,
    clock,
    log,
    spool: options.spool,
  });
  const changes = new Changes({ policy, reconciler, clock, netbootInterfaces: interfaces });
  const snapshots = new Snapshots({ policy, reconciler, store: peers.store, calls, clock });
  const schedules = new Schedules(policy, clock);
  const tls =
    options.https === null
      ? null
      : await TlsCertificates.open({
          state: options.state,
          nodeName: identity.name,
          names: () => [
            identity.name,
            ...consoleNames(policy),
            ...readAddresses().map(({ address }) => address),
          ],
          box,
          clock,
          log,
        });
  const audit = await Audit.open({ directory: join(options.state, "audit"), clock }, log);
  const headDelivery = new HeadDelivery({
    ...{ policy, clock, log, nodeName: identity.name, head: audit.log.head },
    ...(options.headPace === undefined ? {} : { pace: options.headPace }),
  });
  audit.onHead((head) => headDelivery.add(head));
  const scheduleRunner = new ScheduleRunner({
    ...{ policy, reconciler, snapshots, clock, log },
    record: (event) => audit.record(event),
    onFailures: () => {
      judge();
      hub.touch("conditions", "snapshot-schedules");
    },
  });
  const failures = () => scheduleRunner.failures;
  const snapshotViews = new SnapshotViews({ policy, reconciler, clock, failures });
  let clusterStore: Checked<string> = unobserved("cluster-store");
  const clockSynchronised = () => readClockState(clock.bootMs());
  const views = new Views({
    policy,
    reconciler,
    clients,
    tasks,
    imports,
    snapshots: snapshotViews,
    upgrades,
    conditions,
    clock,
    identity,
    addresses: readAddresses,
    netbootInterfaces: interfaces,
    netbootWanted,
    portalAddress: options.portalAddress,
    certificateFingerprint: () => tls?.served.fingerprint ?? null,
    clockSynchronised,
    clusterStore: () => clusterStore,
  });
  const access = { ...openAccess(options.state, policy, box, clock, identity.name), audit };
  let addresses: Record<string, string> = {};
  const identityLogIn = createIdentityLogIn({
    ...{ policy, sessions: access.sessions, clock, log },
    defaultConsoleUrl: () => defaultConsoleUrl(identity.name, addresses),
  });
  const hub = new EventHub((resource) =>
    isAccountResource(resource)
      ? accountDocuments({ policy, ...access, identityLogIn, headDelivery }, resource)
      : views.documents(resource),
  );

  const judge = () =>
    conditions.update(
      judgeAll({
        observation: reconciler.observation,
        problems: reconciler.problems,
        policy,
        netbootWanted: netbootWanted(),
        clusterStore,
        network: nodeNetwork.observed,
        clockSynchronised: clockSynchronised(),
        devBuild: identity.devBuild,
        sealedBy: secretKey.sealedBy,
        tls: tls?.state() ?? null,
        audit: audit.log,
        headDelivery: headDelivery.state(),
        scheduleFailures: scheduleRunner.failures,
        nowMs: clock.bootMs(),
      }),
    );
  policy.onChange(() => {
    hub.touch("volumes", "images", "boot-entries", "exports", "netboot", ...accountResources);
    hub.touch("snapshots", "snapshot-schedules");
  });
  clients.onChange(() => hub.touch("clients"));
  tasks.onChange(() => hub.touch("tasks", "images"));
  upgrades.onChange(() => hub.touch("upgrade"));
  reconciler.onRun(() => {
    const { sessions } = reconciler.observation;
    if (sessions.quality !== "bad") clients.applySessions(sessions.value, policy.list("boot"));
    tls?.renew().catch((error) => {
      log.error("no certificate for the new addresses", { why: explainError(error) });
    });
    void Promise.all([probe(store, clock), nodeNetwork.observe()]).then(([checked]) => {
      clusterStore = checked;
      judge();
      hub.touch(...eventResources);
    });
  });
  [clusterStore] = await Promise.all([probe(store, clock), nodeNetwork.observe()]);
  judge();
  await imports.recover();

  const unexpected = (error: Error) => {
    log.error("unexpected error", { why: error.message });
    log.debug(error.stack ?? "");
  };
  const support = join(options.run, "support");
  mkdirSync(support, { recursive: true, mode: 0o750 });
  const downloads = new Downloads(support, clock);
  const common = {
    downloads,
    policy,
    changes,
    snapshots,
    schedules,
    snapshotViews,
    views,
    imports,
    tasks,
    upgrades,
    clients,
    conditions,
    diskExports: new DiskExports(peers.store),
    scrubs: peers.store,
    hub,
    headDelivery,
    unexpected,
  };
  const platform = { idempotency: new Idempotency({ journal, box, clock }), tls };
  const app = (secure: boolean) =>
    createApp({
      ...common,
      nodeNetwork,
      ...access,
      identityLogIn,
      ...platform,
      secure,
      ui: options.ui,
      version: identity.version,
    });
  const ended = new AbortController();
  const internal = await serveUnix(
    createInternalApp(
      { policy, reconciler, clients, clock, log, portalAddress: options.portalAddress },
      unexpected,
    ),
    join(options.run, "internal.sock"),
  );
  const { sessions } = access;
  const consoleDoor = await serveUnix(
    createConsoleApp(
      {
        ...{ policy, sessions, views, conditions, downloads, audit, clock },
        leafFingerprint: () => tls?.leafFingerprint ?? null,
      },
      unexpected,
    ),
    join(options.run, "console.sock"),
    0o600,
  );
  reconciler.start();
  // Once it is known what the store has: a run that was cut off may have made its snapshots.
  void reconciler.settle().then(() => scheduleRunner.start());
  // So that what is true at start counts as told: only changes are events.
  hub.touch(...eventResources);
  hub.flush();
  const watching = followSessions(peers.target, ended.signal, (view) => {
    clients.applySessions(view, policy.list("boot"));
    hub.touch("exports", "clients");
  });
  const upgrading = upgrades.follow(ended.signal);
  const listeners = [
    ...(options.https === null ? [] : [await listen(app(true), options.https, tls!.served)]),
    ...(options.http === null ? [] : [await listen(app(false), options.http, null)]),
  ];
  tls?.onChange((served) => {
    for (const listener of listeners) listener.serve(served);
    judge();
    hub.touch("node", "conditions");
  });
  addresses = Object.fromEntries(listeners.map(({ url }) => [url.split(":")[0], url]));
  log.info("ready", addresses);
  return {
    addresses,
    close: async () => {
      ended.abort();
      await Promise.all(listeners.map((listener) => listener.close()));
      await imports.stop();
      await scheduleRunner.stop();
      await Promise.all([internal.close(), consoleDoor.close()]);
      await reconciler.stop();
      await Promise.all([watching, upgrading]);
      headDelivery.close();
      await audit.close();
      forgetFormats();
      policy.close();
      journal.close();
      await store.close();
    },
  };
}

/** What decides who calls. */
function openAccess(state: string, policy: Policy, box: SecretBox, clock: Clock, nodeName: string) {
  const tokens = new Tokens(policy, clock);
  const sessions = new Sessions(policy, clock, tokens);
  const totp = new TotpFactors(policy, clock, `Keelson ${nodeName}`);
  const devices = LogInDevices.open(join(state, "device.key"), box);
  const logIns = new LogIns({ policy, sessions, totp, devices, clock });
  const accounts = new Accounts(policy, sessions, clock);
  return { tokens, sessions, totp, logIns, accounts };
}

/** etcd may still be starting: on a booting node nothing else can be done meanwhile. */
async function openPolicy(
  store: ClusterStore,
  seal: RecordSeal,
  held: HeldFormatsFile,
  log: Log,
): Promise<Policy> {
  for (let attempt = 1; ; attempt++) {
    try {
      await settlePolicyFormat(store, held);
      return await Policy.open(store, seal);
    } catch (error) {
      const retry = error instanceof KeelsonError && error.code === "UNAVAILABLE";
      if (!retry || attempt === openAttempts) throw error;
      if (attempt === 1) log.warn("waiting for the cluster store", { why: explainError(error) });
      await new Promise((resolve) => setTimeout(resolve, openRetryMs));
    }
  }
}

async function probe(store: ClusterStore, clock: Clock): Promise<Checked<string>> {
  const origin = () => ({ source: "cluster-store", atMs: clock.bootMs(), maxAgeMs: 30_000 });
  try {
    await store.get("policy/probe");
    return good<string>(store.engine, origin());
  } catch (error) {
    return bad(explainError(error), origin());
  }
}

/** The first start takes the hash that the installer was given, or makes a password up. */
async function ensureAdmin(
  policy: Policy,
  clock: Clock,
  hashFile: string | null,
  log: Log,
): Promise<void> {
  if (policy.find("user", "admin") !== undefined) return;
  let passwordHash: string;
  if (hashFile !== null && existsSync(hashFile)) {
    passwordHash = readFileSync(hashFile, "utf8").trim();
    parsePasswordHash(passwordHash);
  } else if (hashFile !== null) {
    throw new KeelsonError("NOT_FOUND", `The password hash file ${hashFile} is missing.`, {
      operation: "set the admin's password",
      object: hashFile,
      remedy: "keelson-node-setup writes it; without that, leave --admin-password-hash-file out.",
    });
  } else {
    const password = randomBytes(12).toString("base64url");
    passwordHash = hashPassword(password);
    // Once, and only where a person started this by hand.
    process.stdout.write(`The admin's password is ${password} (shown this once).\n`);
  }
  await policy.change((draft) => {
    if (draft.get("user", "admin") === undefined) {
      draft.put("user", newUser("admin", passwordHash, clock.now(), { roles: [adminRole] }));
    }
  });
  log.info("admin's password set");
}

async function followSessions(
  target: TargetPeer,
  signal: AbortSignal,
  apply: (view: SessionsView) => void,
): Promise<void> {
  while (!signal.aborted) {
    try {
      for await (const view of target.watchSessions(signal)) apply(view);
    } catch {
      // The target is away: the reconciler says so, and sessions come with its next answer.
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, watchRetryMs);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
