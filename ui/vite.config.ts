import { defineConfig } from "vitest/config";

/** Where `npm run dev` finds a running node; the built page always talks to the origin that served it. */
const node = "http://127.0.0.1:8080";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    // The page is one script: there is nothing to preload.
    modulePreload: false,
    // What the licences of the bundled libraries ask for goes out with the page.
    license: { fileName: "licenses.md" },
    // The Content-Security-Policy forbids data: URLs, so that no asset may be inlined.
    assetsInlineLimit: 0,
  },
  server: {
    proxy: {
      "/api": node,
      "/auth": node,
      "/health": node,
      "/invalid": node,
      "/topics": node,
      "/ws": { target: node, ws: true },
    },
  },
  test: { include: ["src/**/*.test.ts"] },
});
