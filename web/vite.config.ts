import { svelte } from "@sveltejs/vite-plugin-svelte";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

// `npm run dev` talks to a running app: GLEANER_APP=http://127.0.0.1:8090 (the default).
const app = process.env.GLEANER_APP ?? "http://127.0.0.1:8090";

export default defineConfig({
  plugins: [svelte()],
  resolve: { alias: { $lib: fileURLToPath(new URL("./src/lib", import.meta.url)) } },
  build: { outDir: "../src/gleaner/app/static", emptyOutDir: true, target: "es2022", assetsInlineLimit: 0 },
  server: { host: "127.0.0.1", proxy: { "/api": { target: app, ws: true }, "/login": { target: app, bypass: (r) => (r.url?.includes("token=") ? undefined : r.url) } } },
});
