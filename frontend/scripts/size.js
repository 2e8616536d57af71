// Print the compressed JavaScript of the built page and of the inspector, and fail if either exceeds its limit.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMITS_KB = { page: 135, inspector: 90 };

const dist = new URL("../dist/", import.meta.url);
if (!existsSync(dist)) {
  console.error("The page is not built: run `npm run build` first.");
  process.exit(1);
}
for (const [name, limit] of Object.entries(LIMITS_KB)) {
  const assets = new URL(`${name}/assets/`, dist);
  const scripts = readdirSync(assets).filter((file) => file.endsWith(".js"));
  const sizes = scripts.map((script) => gzipSync(readFileSync(new URL(script, assets))).length / 1000);
  const sum = sizes.reduce((total, kB) => total + kB, 0);
  scripts.forEach((script, index) => {
    console.log(`${format(sizes[index])} kB  ${script}`);
  });
  console.log(`${format(sum)} kB  JavaScript of the ${name} in total, gzip (limit ${limit} kB)`);
  if (sum > limit) {
    console.error(
      `The ${name}'s JavaScript is ${(sum - limit).toFixed(1)} kB over its limit: shrink it, or raise LIMITS_KB in scripts/size.js.`,
    );
    process.exitCode = 1;
  }
}

function format(kB) {
  return kB.toFixed(1).padStart(8);
}
