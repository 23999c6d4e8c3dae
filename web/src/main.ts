import { mount } from "svelte";
import "./app.css";
import App from "./App.svelte";
import { toasts } from "./lib/toasts.svelte";

// After an update of the app the old page's parts are gone: say so instead of failing quietly.
addEventListener("vite:preloadError", () => toasts.show("Gleaner was updated", { detail: "Reload to use the new pages.", action: { label: "Reload", run: () => location.reload() } }));

export default mount(App, { target: document.getElementById("app")! });
