/**
 * The installer's loop: look for answers, check them, plan, install; whatever is wrong is shown and
 * the loop waits for other answers. It never writes to a disk before the plan stands and the medium
 * has been verified.
 *
 *     waiting <----------------------------- refusal or failure, shown
 *        | answers found (new text)             ^
 *        v                                      |
 *     checked --> planned --> medium verified --+--> written --> reboot or power off
 */
import { createHash, randomUUID } from "node:crypto";
import { join } from "node:path";
import { parseAnswerFile } from "#lib/answer-file/answer-file.ts";
import type { Answers } from "#lib/answer-file/schema.ts";
import type { Console } from "#lib/console/console.ts";
import { explainError, isKeelsonError, KeelsonError } from "#lib/model/errors.ts";
import { type AnswersPlace, type FoundAnswers, readPlace, readSeed } from "./answers.ts";
import type { Command } from "./command.ts";
import { listDisks } from "./disks.ts";
import { install, installBytes, readInstalledMark } from "./executor.ts";
import { type ImageFacts, verifyFiles, verifyRoot } from "./medium.ts";
import { type DiskFacts, describeDisk, planInstall } from "./plan.ts";
import { createProgress, formatDuration } from "./progress.ts";
import { waitingScreen } from "./screen.ts";

export interface InstallerOptions {
  readonly console: Console;
  readonly run: Command;
  readonly image: ImageFacts;
  /** The medium's `keelson` folder. */
  readonly medium: string;
  readonly scratch: string;
  readonly place: AnswersPlace | undefined;
  readonly addresses: () => readonly string[];
  readonly nowMs: () => number;
}

const minimumStoreBytes = 2 ** 30;

export class Installer {
  readonly #options: InstallerOptions;
  /** Text of the answers that were tried last, and what came of it. */
  #tried: string | undefined;
  #refusal: string | undefined;
  #shown = "";

  constructor(options: InstallerOptions) {
    this.#options = options;
  }

  /** One round: installs if there are new answers, else shows what is awaited. */
  async round(): Promise<Answers["after"] | undefined> {
    try {
      const found = await this.#find();
      if (found !== undefined && found.text !== this.#tried) {
        this.#tried = found.text;
        return await this.#use(found);
      }
      if (found === undefined) this.#refusal = undefined;
    } catch (error) {
      await this.#refuse(error);
    }
    await this.#showWaiting();
    return undefined;
  }

  async #find(): Promise<FoundAnswers | undefined> {
    const { place, scratch, run } = this.#options;
    const seed = await readSeed(scratch, run);
    if (seed !== undefined || place === undefined) return seed;
    if (place.kind !== "url" && this.#tried !== undefined) {
      return { text: this.#tried, name: "" };
    }
    return readPlace(place);
  }

  async #use(found: FoundAnswers): Promise<Answers["after"]> {
    const { console, run, image, medium, scratch, nowMs } = this.#options;
    console.print("", `Answers: ${found.name}`);
    const answers = parseAnswerFile(found.text, found.name);
    const digest = createHash("sha256").update(found.text).digest("hex");
    const disks = await listDisks(run);
    const result = planInstall(disks, answers, {
      minimumDiskBytes: image.minimumDiskBytes,
      minimumStoreBytes,
    });
    if (!result.ok) {
      throw new KeelsonError("CONFLICT", result.reason, { remedy: result.remedy });
    }
    const { plan } = result;
    await this.#refuseRepetition(plan.disk, digest);
    console.print(
      `Installing Keelson ${image.version} as '${answers.node.name}' on ${describeDisk(plan.disk)}`,
      ...plan.erases.map((what) => `  erases ${what}`),
      ...plan.keeps.map((what) => `  keeps ${what}`),
    );
    const started = nowMs();
    const progress = createProgress({
      totalBytes: installBytes(image),
      print: (line) => console.print(line),
      nowMs,
    });
    progress.step("verifying the medium");
    await verifyRoot(join(medium, "root.img"), join(medium, "root.verity"), image.rootHash, (n) =>
      progress.advance(n),
    );
    verifyFiles(medium, image.files ?? {});
    await install({
      plan,
      answers,
      answersDigest: digest,
      image,
      medium,
      scratch,
      nodeId: randomUUID(),
      run,
      progress,
    });
    const then = answers.after === "reboot" ? "Restarting" : "Powering off";
    console.print(
      `Installation complete in ${formatDuration(nowMs() - started)}. ${then}; the medium can be removed.`,
    );
    return answers.after;
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

  async #refuse(error: unknown): Promise<void> {
    const message = isKeelsonError(error)
      ? explainError(error)
      : `Unexpected fault: ${error instanceof Error ? (error.stack ?? error.message) : error}`;
    if (message === this.#refusal) return;
    this.#refusal = message;
    this.#shown = "";
    const lines = message.split("\n");
    this.#options.console.print("", `Installation refused: ${lines[0]}`, ...lines.slice(1));
  }

  /** Printed again only when something in it has changed: a serial line has no full screen. */
  async #showWaiting(): Promise<void> {
    const { run, image, addresses, console } = this.#options;
    let disks: readonly DiskFacts[] = [];
    let fault: string | undefined;
    try {
      disks = await listDisks(run);
    } catch (error) {
      fault = explainError(error);
    }
    const lines = waitingScreen({
      version: image.version,
      addresses: addresses(),
      disks,
      fault,
      refusal: this.#refusal,
    });
    const text = lines.join("\n");
    if (text === this.#shown) return;
    this.#shown = text;
    console.print(...lines);
  }
}
