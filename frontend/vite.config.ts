import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "./", // so that the built page works in any folder of any host
  plugins: [react()],
  server: {
    port: 3000,
    strictPort: true,
    proxy: { "/api": { target: "http://localhost:3001", changeOrigin: true } }, // the inspector's server of `make up`
  },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    // The page, and the inspector of the local run.
    rolldownOptions: { input: ["index.html", "inspector.html"] },
  },
  test: { include: ["tests/**/*.test.ts"] },
});
