/** Upgrade, network and settings: one part, loaded when one of its pages is first shown. */
export { UpgradePage } from "./upgrade.tsx";
