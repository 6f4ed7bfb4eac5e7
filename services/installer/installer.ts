/**
 * The installer's loop: look for answers, check them, plan, install; whatever is wrong is told and
 * the loop waits for other answers. It never writes to a disk before the plan stands and the medium
 * has been verified.
 *
 *     waiting <----------------------------- refusal or failure, told
 *        | answers found (new text), or given by the console
 *        v                                      ^
 *     checked --> planned --> medium verified --+--> written --> reboot or power off
 */
import { createHash, randomUUID } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseAnswerFile } from "#lib/answer-file/answer-file.ts";
import type { Answers } from "#lib/answer-file/schema.ts";
import { formatDuration } from "#lib/model/duration.ts";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { hashPasswordAsync } from "#lib/password/password.ts";
import { type AnswersPlace, type FoundAnswers, readPlace, readSeed } from "./answers.ts";
import type { Board } from "./board.ts";
import type { Command } from "./command.ts";
import { listDisks } from "./disks.ts";
import { install, installBytes, readInstalledMark } from "./executor.ts";
import { listMedia, saveAnswers } from "./media.ts";
import { type ImageFacts, verifyFiles, verifyRoot } from "./medium.ts";
import { tryNetwork } from "./network-test.ts";
import { randomPassword } from "./password.ts";
import { type DiskFacts, describeContent, describeDisk, planInstall } from "./plan.ts";
import { createProgress } from "./progress.ts";
import type { DiskView, InterfaceView, MediumView, PlanView, Probe } from "./schema.ts";

export interface InstallerOptions {
  readonly board: Board;
  readonly run: Command;
  readonly image: ImageFacts;
  /** The medium's `keelson` folder. */
  readonly medium: string;
  readonly scratch: string;
  /** Throws if the kernel line says it wrongly. */
  readonly place: () => AnswersPlace | undefined;
  readonly addresses: () => readonly string[];
  readonly ports: () => readonly InterfaceView[];
  readonly nowMs: () => number;
  /** Ends the loop's pause. */
  readonly wake: () => void;
}

export const minimumStoreBytes = 2 ** 30;
/** How long what is told at the end stays on the screens where a person should read it. */
const readMs = 60_000;
/** A serial line takes its time to show the last line. */
const lastLineMs = 3_000;

export class Installer {
  readonly board: Board;
  readonly #options: InstallerOptions;
  /** Text of the answers that were tried last, and what came of it. */
  #tried: string | undefined;
  #refusal: string | undefined;
  /** Given by a person at the console. */
  #given: string | undefined;
  #hurry = () => {};

  constructor(options: InstallerOptions) {
    this.#options = options;
    this.board = options.board;
  }

  /** One round: installs if there are new answers, else tells what is awaited. */
  async round(): Promise<Answers["after"] | undefined> {
    try {
      const found = await this.#find();
      if (found !== undefined && found.text !== this.#tried) {
        this.#tried = found.text;
        return await this.#use(found);
      }
      if (found === undefined && !this.board.view.attended) this.#forget();
    } catch (error) {
      this.#refuse(error);
    }
    await this.#look();
    return undefined;
  }

  attend(attended: boolean): void {
    this.board.change({ attended });
    if (attended) this.#forget();
    this.#options.wake();
  }

  /** Answers of a person: tried at once, also if they are the same as before. */
  give(text: string): void {
    const { phase } = this.board.view;
    if (phase.kind === "installing" || phase.kind === "done") {
      throw new KeelsonError("CONFLICT", "An installation is under way already.");
    }
    this.#given = text;
    this.#options.wake();
  }

  /** What an installation by these answers would do. */
  async plan(text: string): Promise<PlanView> {
    try {
      const { plan } = await this.#planOf(parseAnswerFile(text, "These answers"));
      return { ok: true, erases: plan.erases, keeps: plan.keeps };
    } catch (error) {
      if (!isKeelsonError(error)) throw error;
      return { ok: false, reason: explainError(error) };
    }
  }

  async testNetwork(text: string): Promise<Probe[]> {
    const answers = parseAnswerFile(text, "These answers");
    const probes = await tryNetwork(
      answers.network,
      answers.node.name,
      answers.ntp,
      this.#options.run,
    );
    this.board.change({ interfaces: this.#options.ports(), addresses: this.#options.addresses() });
    return probes;
  }

  media(): Promise<MediumView[]> {
    return listMedia(this.#options.run);
  }

  save(file: { readonly device: string; readonly text: string }): Promise<string> {
    return saveAnswers(file, this.#options.scratch, this.#options.run);
  }

  async power(action: "reboot" | "poweroff"): Promise<void> {
    const { phase } = this.board.view;
    if (phase.kind === "installing") {
      throw new KeelsonError("CONFLICT", "The installation is under way.", {
        remedy: "Wait until it is complete.",
      });
    }
    if (phase.kind === "done") this.#hurry();
    else await this.#options.run("systemctl", ["--no-block", action]);
  }

  async #find(): Promise<FoundAnswers | undefined> {
    const { scratch, run } = this.#options;
    const given = this.#given;
    if (given !== undefined) {
      this.#given = undefined;
      this.#tried = undefined;
      return { text: given, name: "the setup wizard" };
    }
    if (this.board.view.attended) return undefined;
    const seed = await readSeed(scratch, run);
    const place = seed === undefined ? this.#options.place() : undefined;
    if (seed !== undefined || place === undefined) return seed;
    if (place.kind !== "url" && this.#tried !== undefined) {
      return { text: this.#tried, name: "" };
    }
    return readPlace(place);
  }

  async #use(found: FoundAnswers): Promise<Answers["after"]> {
    const { board, run, image, medium, scratch, nowMs } = this.#options;
    board.say("", `Answers: ${found.name}`);
    board.change({ phase: { kind: "installing", percent: 0, step: "checking", leftMs: null } });
    const answers = parseAnswerFile(found.text, found.name);
    const digest = createHash("sha256").update(found.text).digest("hex");
    const { plan } = await this.#planOf(answers);
    await this.#refuseRepetition(plan.disk, digest);
    board.say(
      `Installing Keelson ${image.version} as '${answers.node.name}' on ${describeDisk(plan.disk)}`,
      ...plan.erases.map((what) => `  erases ${what}`),
      ...plan.keeps.map((what) => `  keeps ${what}`),
    );
    const started = nowMs();
    const progress = createProgress({
      totalBytes: installBytes(image),
      print: (line) => board.say(line),
      show: (state) => board.change({ phase: { kind: "installing", ...state } }),
      nowMs,
    });
    progress.step("verifying the medium");
    await verifyRoot(join(medium, "root.img"), join(medium, "root.verity"), image.rootHash, (n) =>
      progress.advance(n),
    );
    verifyFiles(medium, image.files ?? {});
    const password = answers.admin.passwordHash === undefined ? randomPassword() : undefined;
    await install({
      plan,
      answers,
      answersDigest: digest,
      adminHash: answers.admin.passwordHash ?? (await hashPasswordAsync(password!)),
      image,
      medium,
      scratch,
      nodeId: randomUUID(),
      run,
      progress,
    });
    await this.#finish(answers, nowMs() - started, password);
    return answers.after;
  }

  async #finish(answers: Answers, tookMs: number, password: string | undefined): Promise<void> {
    const { board } = this.#options;
    const then = answers.after === "reboot" ? "Restarting" : "Powering off";
    const reader = password !== undefined || board.view.attended;
    board.change({
      phase: {
        ...{ kind: "done", name: answers.node.name, after: answers.after, tookMs },
        password: password ?? null,
      },
    });
    board.say(
      ...(password === undefined
        ? []
        : [`Password of user admin, shown only here and only now: ${password}`]),
      `Installation complete in ${formatDuration(tookMs)}. ${then}${reader ? " in a minute" : ""}; the medium can be removed.`,
    );
    const hurried = new Promise<void>((resolve) => {
      this.#hurry = resolve;
    });
    await Promise.race([hurried, sleep(reader ? readMs : lastLineMs)]);
  }

  async #planOf(answers: Answers) {
    const { run, image } = this.#options;
    const result = planInstall(await listDisks(run), answers, {
      minimumDiskBytes: image.minimumDiskBytes,
      minimumStoreBytes,
    });
    if (result.ok) return result;
    throw new KeelsonError("CONFLICT", result.reason, { remedy: result.remedy });
  }

  /**
   * A machine whose firmware prefers the medium would come back here after every installation and
   * erase itself for ever: the same answers don't install twice.
   */
  async #refuseRepetition(disk: DiskFacts, digest: string): Promise<void> {
    const { run, scratch } = this.#options;
    const old = disk.content.find(({ label }) => label === "keelson-var");
    if (old === undefined) return;
    const mark = await readInstalledMark(old.path, scratch, run);
    if (mark?.answersDigest !== digest) return;
    throw new KeelsonError(
      "ALREADY_EXISTS",
      `${disk.path} was already installed from exactly this answer file.`,
      {
        remedy:
          "Remove the medium and restart. To install again, change the answer file (a comment is enough).",
      },
    );
  }

  #forget(): void {
    this.#refusal = undefined;
    if (this.board.view.phase.kind === "refused") this.board.change({ phase: { kind: "waiting" } });
  }

  #refuse(error: unknown): void {
    const message = isKeelsonError(error)
      ? explainError(error)
      : `Unexpected fault: ${error instanceof Error ? error.message : error}`;
    this.board.change({ phase: { kind: "refused", message } });
    if (message === this.#refusal) return;
    this.#refusal = message;
    const lines = message.split("\n");
    this.board.say("", `Installation refused: ${lines[0]}`, ...lines.slice(1));
  }

  async #look(): Promise<void> {
    const { run, addresses, ports } = this.#options;
    let disks: readonly DiskFacts[] = [];
    let fault: string | null = null;
    try {
      disks = await listDisks(run);
    } catch (error) {
      fault = explainError(error);
    }
    this.board.change({
      addresses: addresses(),
      interfaces: ports(),
      disks: disks.map(viewDisk),
      diskFault: fault,
      ready: true,
    });
  }
}

function viewDisk(disk: DiskFacts): DiskView {
  const { path, sizeBytes, model, serial, medium, readOnly } = disk;
  return {
    ...{ path, sizeBytes, model, serial, medium, readOnly },
    contents: disk.content.map((content) => ({
      text: describeContent(content),
      pool: content.pool ?? null,
    })),
  };
}
