// Headless and silent: no editor, no HTTP nodes, no telemetry, warnings only.
module.exports = {
    flowFile: "flows.json",
    uiHost: "127.0.0.1",
    uiPort: Number(process.env.BENCH_UI_PORT),
    httpAdminRoot: false,
    httpNodeRoot: false,
    disableEditor: true,
    credentialSecret: false,
    telemetry: { enabled: false, updateNotification: false },
    logging: { console: { level: "warn", metrics: false, audit: false } },
    functionGlobalContext: { weights: require("./weights.json") },
};
