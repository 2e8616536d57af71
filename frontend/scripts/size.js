// Prints what a browser downloads of the built page and of the inspector, and fails if the JavaScript of either is too large.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMITS_KB = { "index.html": 135, "inspector.html": 90 };

const dist = new URL("../dist/", import.meta.url);
if (!existsSync(dist)) {
  console.error("The page is not built: run `npm run build` first.");
  process.exit(1);
}
const scripts = readdirSync(new URL("assets/", dist)).filter((name) => name.endsWith(".js"));

for (const [entry, limit] of Object.entries(LIMITS_KB)) {
  const sizes = findScripts(entry).map((name) => ({ name, kB: gzipSync(read(`assets/${name}`)).length / 1000 }));
  const sum = sizes.reduce((total, { kB }) => total + kB, 0);
  for (const { name, kB } of sizes) {
    console.log(`${format(kB)} kB  ${name}`);
  }
  console.log(`${format(sum)} kB  JavaScript of ${entry} in all, gzip (limit ${limit} kB)`);
  if (sum > limit) {
    console.error(
      `${entry}: the JavaScript has ${(sum - limit).toFixed(1)} kB more than its limit in scripts/size.js.`,
    );
    process.exitCode = 1;
  }
}

/** Return the scripts that a page loads: those that it names, and those that they import. */
function findScripts(entry) {
  const found = new Set();
  const search = (text) => {
    for (const name of scripts.filter((each) => text.includes(each) && !found.has(each))) {
      found.add(name);
      search(read(`assets/${name}`).toString());
    }
  };
  search(read(entry).toString());
  return [...found];
}

function read(name) {
  return readFileSync(new URL(name, dist));
}

function format(kB) {
  return kB.toFixed(1).padStart(8);
}
