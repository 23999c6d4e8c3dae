/** Every page and its address. Each page is a chunk of its own, loaded when first shown. */
import type { Route } from "$lib/router.svelte";
import MissingPage from "./pages/MissingPage.svelte";

type Load = Route["load"];
// A page that does not exist yet shows a notice instead of breaking the build.
const pages = import.meta.glob("./pages/{data,datasets,train,models}/*Page.svelte") as Record<string, Load>;
const page = (path: string): Load => pages[`./pages/${path}.svelte`] ?? (() => Promise.resolve({ default: MissingPage }));

export const routes: Route[] = [
  { path: "/machines", title: "Machines", load: () => import("./pages/machines/MachinesPage.svelte") },
  { path: "/machines/:id", title: "Machine", load: () => import("./pages/machines/MachinePage.svelte") },
  { path: "/machines/:id/:tab(configure|control|logs|connect)", title: "Machine", load: () => import("./pages/machines/MachinePage.svelte") },
  { path: "/data", title: "Data", load: page("data/DataPage") },
  { path: "/datasets", title: "Datasets", load: page("datasets/DatasetsPage") },
  { path: "/datasets/:id", title: "Dataset", load: page("datasets/DatasetPage") },
  { path: "/train", title: "Train", load: page("train/TrainPage") },
  { path: "/train/:job", title: "Training", load: page("train/JobPage") },
  { path: "/models", title: "Models", load: page("models/ModelsPage") },
  { path: "/models/:name", title: "Model", load: page("models/ModelPage") },
  { path: "/settings", title: "Settings", load: () => import("./pages/settings/SettingsPage.svelte") },
];
