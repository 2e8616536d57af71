/**
 * `npm run storm`: simulate a reconnect storm, print its tables and draw docs/reconnect-storm.svg.
 *
 * Options: --clients, --rate (new connections a second), --outage (seconds; may be repeated), --seed.
 */

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { runnerImport } from "vite";

const PICTURE = new URL("../../docs/reconnect-storm.svg", import.meta.url);

// Node 20 does not run TypeScript. Vite does.
const load = async (name) =>
  (await runnerImport(new URL(name, import.meta.url).pathname, { configFile: false })).module;
const { CONNECTION_RATE, createOwnPolicy, POLICIES, simulate } = await load("reconnect-storm.ts");
const { formatPolicyTable, formatRefreshTable, formatCount } = await load("storm-tables.ts");
const { drawPicture } = await load("storm-picture.ts");

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "10000" },
    rate: { type: "string", default: String(CONNECTION_RATE) },
    outage: { type: "string", multiple: true, default: ["2", "30"] },
    seed: { type: "string", default: "1" },
  },
});
const storms = values.outage.map((outage) => ({
  clients: parseNumber("clients", values.clients),
  rate: parseNumber("rate", values.rate),
  outageSeconds: parseNumber("outage", outage),
  seed: parseNumber("seed", values.seed),
}));

console.log(
  `${formatCount(storms[0].clients)} clients, ${formatCount(storms[0].rate)} new connections a second, seed ${storms[0].seed}.`,
  "Times count from the end of the outage.",
);
const outcomes = storms.map((storm) => POLICIES.map((policy) => simulate(policy, storm)));
for (const [index, storm] of storms.entries()) {
  console.log(`\nOutage of ${storm.outageSeconds} s:\n\n${formatPolicyTable(outcomes[index])}`);
  const refreshes = [1, 2, 3, 4, 5, 6].map((failures) => simulate(createOwnPolicy(failures), storm));
  console.log(`\nOutage of ${storm.outageSeconds} s, this project:\n\n${formatRefreshTable(refreshes)}`);
}
writeFileSync(PICTURE, drawPicture(outcomes));

function parseNumber(option, text) {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value < 0) {
    throw new Error(`--${option} ${text}: must be a number of at least 0`);
  }
  return value;
}
