import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// Two builds: the page, and, in the mode "inspector", the inspector of the local run, which must not be uploaded.
export default defineConfig(({ mode }) => {
  const inspector = mode === "inspector";
  return {
    base: "./", // makes URLs relative, so that the page works in any folder of a host
    plugins: [react()],
    server: {
      port: 3000,
      strictPort: true,
      proxy: { "/api": { target: "http://localhost:3001", changeOrigin: true } }, // the inspector's server of `make up`
    },
    build: {
      target: "es2022",
      modulePreload: { polyfill: false },
      outDir: inspector ? "dist/inspector" : "dist/page",
      rolldownOptions: { input: inspector ? "inspector.html" : "index.html" },
    },
    test: { include: ["tests/**/*.test.ts"] },
  };
});
