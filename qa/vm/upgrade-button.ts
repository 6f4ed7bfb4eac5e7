/** The upgrade as a person does it: by the console's page in Chromium, which stays open throughout. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { launchBrowser, logIn, openWindow } from "#qa/ui/browser.ts";
import { planMs, type UpgradeNode } from "./upgrade-node.ts";

const screenshots = join(import.meta.dirname, "../../build/screenshots");

export class UpgradeWindow {
  readonly #page: Page;
  readonly close: () => Promise<void>;

  private constructor(page: Page, close: () => Promise<void>) {
    this.#page = page;
    this.close = close;
  }

  /** Logs in and opens the page; the node must be up. */
  static async open(node: UpgradeNode): Promise<UpgradeWindow> {
    const browser = await launchBrowser();
    try {
      const page = await (await openWindow(browser)).newPage();
      page.setDefaultTimeout(planMs);
      await logIn(page, node.client.url, { user: "admin", password: node.password });
      await page.evaluate(() => {
        location.hash = "/upgrade";
      });
      await page.getByRole("heading", { name: "Offered" }).waitFor();
      return new UpgradeWindow(page, () => browser.close());
    } catch (error) {
      await browser.close();
      throw error;
    }
  }

  /** Until the node has it and has found its signature and its hashes right. */
  async upload(path: string, version: string): Promise<void> {
    await this.#page.getByLabel("Upload a bundle").setInputFiles(path);
    await this.#upgradeButton(version).waitFor();
    await this.keep("vm-upgrade-offered");
  }

  /** Presses the button, reads what will happen, and says yes. */
  async start(version: string): Promise<void> {
    await this.#upgradeButton(version).click();
    const dialog = this.#page.getByRole("dialog");
    await dialog.getByRole("region", { name: "What will happen" }).waitFor();
    await this.keep("vm-upgrade-plan");
    await dialog.getByRole("button", { name: "Upgrade now" }).click();
    await this.#page.getByRole("list", { name: "Steps" }).first().waitFor();
  }

  /** The page is told of the restart and finds the node again, without a reload. */
  async follow(): Promise<void> {
    await this.#page.getByText("The node is restarting").waitFor();
    await this.keep("vm-upgrade-restarting");
    await this.#page.getByText("The node is restarting").waitFor({ state: "hidden" });
    const plan = this.#page.locator("section", { has: this.#page.getByText(/^Upgrade from /) });
    await plan.getByText(/^(Done|Returned|Failed|Cancelled)$/).waitFor();
    await this.keep("vm-upgrade-done");
  }

  async keep(name: string): Promise<void> {
    mkdirSync(screenshots, { recursive: true });
    await this.#page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
  }

  #upgradeButton(version: string) {
    return this.#page.getByRole("button", { name: `Upgrade to ${version}` });
  }
}
