import { defineConfig } from "vitest/config";

// biome-ignore lint/style/noDefaultExport: vitest reads its configuration from the default export.
export default defineConfig({
  test: {
    include: [
      "{lib,services,native,ui,cli,image,units,qa,tools,firmware-updater}/**/*.test.{ts,tsx}",
    ],
    // Only what hangs is to end so: beside emulated machines a start takes a quarter of a minute.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 60_000 } },
    setupFiles: ["tools/patience.ts"],
    maxWorkers: 2,
  },
});
