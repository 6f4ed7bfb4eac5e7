export const installScenario = { name: "install", summary: "", async run() {} };
