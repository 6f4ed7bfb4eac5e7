/** Upgrade, network and settings: one part, loaded when one of its pages is first shown. */
export { NetworkPage } from "./network.tsx";
export { SettingsPage } from "./settings.tsx";
export { UpgradePage } from "./upgrade.tsx";
