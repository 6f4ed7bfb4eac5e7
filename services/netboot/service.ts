/** The running service: policy, leases, sockets and observations joined. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Codec, FormattedFile } from "#lib/data-format/formatted-file.ts";
import { HeldFormatsFile } from "#lib/data-format/held.ts";
import { explainError, KeelsonError } from "#lib/model/errors.ts";
import type { MacAddress } from "#lib/model/ids.ts";
import type { Log } from "#lib/service/log.ts";
import { formatIpv4, type Ipv4, parseIpv4 } from "#lib/wire/dhcp/address.ts";
import { parseConfig } from "./api.ts";
import { ApiLink } from "./api-link.ts";
import { ClientTable, type Observation } from "./client-table.ts";
import { Counters } from "./counters.ts";
import { DhcpServer, type Sighting } from "./dhcp-server.ts";
import { type HttpServer, openHttpServer } from "./http-server.ts";
import { type Lease, LeaseTable } from "./lease.ts";
import { LeaseJournal, loadLeases } from "./lease-journal.ts";
import { type Loaders, missingLoaders, readLoaders } from "./loader.ts";
import { addressInUse, neighbourOf } from "./neighbours.ts";
import type { Netboot } from "./netboot.ts";
import { RateLimit } from "./rate-limit.ts";
import type {
  ClientStage,
  ClientView,
  InterfaceView,
  LeaseView,
  NetbootConfig,
  NetbootStatus,
} from "./schema.ts";
import { interfaceScope, poolSize } from "./scope.ts";
import { SegmentListeners } from "./segment-listeners.ts";
import { TftpServer } from "./tftp-server.ts";

export interface ServiceOptions {
  readonly state: string;
  readonly apiSocket: string;
  readonly loaders: string;
  readonly version: string;
  readonly log: Log;
  readonly fail: (error: unknown) => never;
  readonly dhcp: {
    readonly server: number;
    readonly proxy: number;
    readonly client: number;
  } | null;
  readonly interfaces: ReadonlySet<string> | undefined;
  readonly tftp: { readonly port: number; readonly singlePort: boolean } | null;
  readonly http: {
    readonly host: string;
    readonly port: number;
    readonly httpsPort: number;
  } | null;
}

const nothingServed: NetbootConfig = {
  generation: 0,
  interfaces: [],
  relayed: [],
  reservations: [],
  unknownWaitSeconds: 300,
};

/** Boot answers a machine may ask for: a burst for retries by hand, then one in two seconds. */
const scriptBurst = 10;
const scriptsPerSecond = 0.5;

export class NetbootService implements Netboot {
  #options: ServiceOptions;
  #config: NetbootConfig;
  #loaders: Loaders;
  #leases: LeaseTable;
  #journal: LeaseJournal;
  #counters = new Counters();
  #clients = new ClientTable(() => Date.now());
  #api: ApiLink;
  #listeners: SegmentListeners | undefined;
  #tftp: TftpServer | undefined;
  #http: HttpServer | undefined;
  #otherServers = new Map<string, Set<string>>();

  static async start(options: ServiceOptions): Promise<NetbootService> {
    mkdirSync(options.state, { recursive: true, mode: 0o700 });
    const config = policyFile(options.state).read() ?? nothingServed;
    const { leases, skipped } = loadLeases(join(options.state, "leases.jsonl"));
    if (skipped > 0) options.log.warn("lines of leases.jsonl were unreadable", { lines: skipped });
    const table = new LeaseTable(() => Date.now(), leases);
    const journal = await LeaseJournal.open(join(options.state, "leases.jsonl"), () => table.all());
    const service = new NetbootService(options, config, table, journal);
    await service.#open();
    return service;
  }

  private constructor(
    options: ServiceOptions,
    config: NetbootConfig,
    leases: LeaseTable,
    journal: LeaseJournal,
  ) {
    this.#options = options;
    this.#config = config;
    this.#leases = leases;
    this.#journal = journal;
    this.#loaders = readLoaders(options.loaders);
    this.#api = new ApiLink(options.apiSocket, this.#counters);
    for (const names of missingLoaders(this.#loaders)) {
      options.log.warn(`no ${names} in ${options.loaders}; is Debian's package ipxe installed?`);
    }
  }

  async #open(): Promise<void> {
    const { dhcp, tftp, http, log, fail } = this.#options;
    this.#applyReservations();
    if (http !== null) {
      this.#http = await openHttpServer({
        ...http,
        loaders: () => this.#loaders,
        counters: this.#counters,
        rateLimit: new RateLimit(() => performance.now(), scriptBurst, scriptsPerSecond),
        unknownWaitSeconds: () => this.#config.unknownWaitSeconds,
        boot: (request) => this.#api.boot(request),
        neighbour: neighbourOf,
        loading: (ip, file) => void this.#loaderStage(ip, { detail: file }),
        scripted: (request, { action, detail, failure }) =>
          this.#observe({
            ...request,
            mac: request.mac as MacAddress,
            stage: "script",
            action,
            detail,
            failure,
          }),
        failed: (error) => log.warn(`boot script: ${explainError(error)}`),
      });
    }
    if (tftp !== null) {
      this.#tftp = await TftpServer.open({
        ...tftp,
        loaders: () => this.#loaders,
        counters: this.#counters,
        loading: (ip, file) => void this.#loaderStage(ip, { detail: file }),
        refused: (ip, file, why) =>
          void this.#loaderStage(ip, { detail: file, failure: `${file}: ${why}` }),
        failed: fail,
      });
    }
    if (dhcp !== null) {
      const server = new DhcpServer({
        leases: this.#leases,
        now: () => Date.now(),
        config: () => this.#config,
        loaders: () =>
          this.#tftp === undefined && this.#http === undefined ? new Map() : this.#loaders,
        httpPort: () => this.#http?.port,
        commit: (lease) => this.#commit(lease),
        free: (ip) => this.#free(ip),
        inUse: addressInUse,
        otherServer: (name, address) => this.#noteOther(name, formatIpv4(address)),
      });
      this.#listeners = new SegmentListeners(
        {
          server,
          counters: this.#counters,
          log,
          ports: dhcp,
          allowed: this.#options.interfaces,
          sighted: (sighting, policy) => this.#sighted(sighting, policy.name),
        },
        this.#config,
      );
      await this.#listeners.refresh();
    }
  }

  async stop(): Promise<void> {
    this.#tftp?.close();
    await this.#http?.close();
    await this.#listeners?.close();
    await this.#journal.close();
  }

  /** One line for `systemctl status`. */
  describe(): string {
    const parts = [
      this.#http === undefined ? undefined : `http ${this.#http.host}:${this.#http.port}`,
      this.#tftp === undefined ? undefined : `tftp ${this.#tftp.port}`,
      this.#listeners === undefined ? "no dhcp" : "dhcp",
    ];
    return parts.filter((part) => part !== undefined).join(", ");
  }

  /** What was bound, for a parent process that asked for port 0. */
  addresses(): Record<string, string> {
    return {
      ...(this.#http === undefined ? {} : { http: `http://${this.#http.host}:${this.#http.port}` }),
      ...(this.#tftp === undefined ? {} : { tftp: String(this.#tftp.port) }),
    };
  }

  config(): NetbootConfig {
    return this.#config;
  }

  async configure(config: NetbootConfig): Promise<void> {
    if (config.generation < this.#config.generation) {
      throw new KeelsonError(
        "STALE_GENERATION",
        `Policy ${config.generation} is older than ${this.#config.generation}, which is applied.`,
        { operation: "put netboot policy", object: String(config.generation) },
      );
    }
    policyFile(this.#options.state).write(config);
    this.#config = config;
    this.#applyReservations();
    await this.#listeners?.configure(config);
  }

  #applyReservations(): void {
    this.#leases.setReservations(
      this.#config.reservations.map(({ mac, ip }) => [mac as MacAddress, parseIpv4(ip)!] as const),
    );
  }

  async #commit(lease: Lease): Promise<void> {
    // In memory first: the address is taken from here on, even while the disk is slow.
    this.#leases.put(lease);
    await this.#journal.put(lease);
  }

  async #free(ip: Ipv4): Promise<void> {
    this.#leases.remove(ip);
    await this.#journal.free(ip);
  }

  leases(): LeaseView[] {
    return this.#leases.all().map(({ ip, mac, clientId, hostname, scope, state, expiresAtMs }) => ({
      ip: formatIpv4(ip),
      mac,
      clientId,
      ...(hostname === undefined ? {} : { hostname }),
      interface: scope,
      state,
      reserved: this.#leases.isReserved(ip),
      expiresAt: new Date(expiresAtMs).toISOString(),
    }));
  }

  async deleteLease(ip: string): Promise<void> {
    const address = parseIpv4(ip);
    if (address === undefined || this.#leases.at(address) === undefined) {
      throw new KeelsonError("NOT_FOUND", `No lease of ${ip}.`, {
        operation: "delete lease",
        object: ip,
        remedy: "GET /v1/leases lists them.",
      });
    }
    await this.#free(address);
  }

  clients(): ClientView[] {
    return this.#clients.views();
  }

  status(): NetbootStatus {
    return {
      version: this.#options.version,
      generation: this.#config.generation,
      interfaces: this.#config.interfaces.map((policy) => this.#interfaceView(policy)),
      tftp:
        this.#tftp === undefined ? null : { port: this.#tftp.port, sessions: this.#tftp.sessions },
      http: this.#http === undefined ? null : { host: this.#http.host, port: this.#http.port },
      loaders: [...this.#loaders].map(([name, bytes]) => ({ name, sizeBytes: bytes.length })),
      missingLoaders: missingLoaders(this.#loaders),
      counters: this.#counters.snapshot(),
    };
  }

  #interfaceView(policy: NetbootConfig["interfaces"][number]): InterfaceView {
    const segment = this.#listeners?.segment(policy.name);
    const scope = interfaceScope(policy);
    const off = policy.mode !== "off" && this.#listeners === undefined;
    const problem = off ? "This service was started with --no-dhcp." : segment?.problem;
    return {
      name: policy.name,
      mode: policy.mode,
      ...(segment?.address === undefined ? {} : { address: formatIpv4(segment.address) }),
      ...(problem === undefined ? {} : { problem }),
      otherServers: [...(this.#otherServers.get(policy.name) ?? [])],
      poolSize: scope === undefined ? 0 : poolSize(scope),
      leased: this.#leases
        .all()
        .filter((lease) => lease.scope === policy.name && lease.state === "bound").length,
    };
  }

  #noteOther(name: string, address: string): void {
    const known = this.#otherServers.get(name) ?? new Set();
    // Bounded: the option's value is whatever a client sent.
    if (known.size < 16) this.#otherServers.set(name, known.add(address));
  }

  #sighted(sighting: Sighting, name: string): void {
    const { mac, client, boot, ip } = sighting;
    this.#observe(
      {
        mac,
        stage: "dhcp",
        uuid: client.uuid,
        arch: client.arch,
        ip: ip === undefined ? undefined : formatIpv4(ip),
        interface: name,
        detail: boot === undefined ? undefined : boot.kind === "script" ? "iPXE" : boot.file,
        failure:
          boot === undefined ? `No loader for client architecture ${client.arch}.` : undefined,
      },
      client.ipxe,
    );
  }

  /** A loader is asked for by address alone: leases, earlier stages or ARP say whose it is. */
  async #loaderStage(ip: string, what: { detail?: string; failure?: string }): Promise<void> {
    const lease = this.#leases.at(parseIpv4(ip) ?? (0 as Ipv4));
    const mac = lease?.mac ?? this.#clients.macAt(ip) ?? (await neighbourOf(ip));
    if (mac !== undefined)
      this.#observe({ mac, ip, stage: "loader" satisfies ClientStage, ...what });
    else this.#counters.add("client.unidentified-address");
  }

  #observe(seen: Observation, chained = false): void {
    if (!this.#clients.observe(seen, { chained })) return;
    const { mac, stage, uuid, arch, ip, detail, failure } = seen;
    this.#options.log.info("client", { stage, mac, uuid, arch, ip, detail, failure });
    const said = failure ?? detail;
    this.#api.report({
      mac,
      stage,
      at: new Date().toISOString(),
      ...(uuid === undefined ? {} : { uuid }),
      ...(arch === undefined ? {} : { arch }),
      ...(ip === undefined ? {} : { ip }),
      ...(seen.interface === undefined ? {} : { interface: seen.interface }),
      ...(said === undefined ? {} : { detail: said.slice(0, 300) }),
    });
  }
}

/** What api put last. */
function policyFile(folder: string): FormattedFile<NetbootConfig> {
  const first: Codec<NetbootConfig> = {
    format: 1,
    decode(document) {
      const { version: _, ...config } = document as Record<string, unknown>;
      return parseConfig(config);
    },
    encode: (config) => config,
  };
  return new FormattedFile({
    ...{ path: join(folder, "policy.json"), codecs: [first], name: "netboot", member: "version" },
    held: new HeldFormatsFile(),
    unnumbered: 1,
    remedy: "Move it away; api puts the policy again.",
  });
}
