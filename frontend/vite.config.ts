import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "./", // so that the built page works in any folder of any host
  plugins: [react()],
  server: { port: 3000, strictPort: true },
  build: { target: "es2022", modulePreload: { polyfill: false } },
  test: { include: ["tests/**/*.test.ts"] },
});
