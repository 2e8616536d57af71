// Prints what a browser downloads of the built page, and fails if its JavaScript is too large.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT_KB = 135;

const folder = new URL("../dist/assets/", import.meta.url);
if (!existsSync(folder)) {
  console.error("The page is not built: run `npm run build` first.");
  process.exit(1);
}
const sizes = readdirSync(folder)
  .filter((name) => name.endsWith(".js"))
  .map((name) => ({ name, kB: gzipSync(readFileSync(new URL(name, folder))).length / 1000 }));
const sum = sizes.reduce((total, { kB }) => total + kB, 0);

for (const { name, kB } of sizes) {
  console.log(`${kB.toFixed(1).padStart(8)} kB  ${name}`);
}
console.log(`${sum.toFixed(1).padStart(8)} kB  JavaScript in all, gzip (limit ${LIMIT_KB} kB)`);
if (sum > LIMIT_KB) {
  console.error(`The page's JavaScript has ${(sum - LIMIT_KB).toFixed(1)} kB more than its limit in scripts/size.js.`);
  process.exit(1);
}
