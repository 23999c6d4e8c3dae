/** Every page and its address. Each page is a chunk of its own, loaded when first shown. */
import type { Route } from "$lib/router.svelte";

const machine: Route["load"] = () => import("./pages/machines/MachinePage.svelte");

export const routes: Route[] = [
  { path: "/machines", title: "Machines", load: () => import("./pages/machines/MachinesPage.svelte") },
  { path: "/machines/:id", title: "Machine", load: machine },
  { path: "/machines/:id/:tab(configure|control|capture|logs|connect)", title: "Machine", load: machine },
  { path: "/data", title: "Data", load: () => import("./pages/data/DataPage.svelte") },
  { path: "/query", title: "Query", load: () => import("./pages/query/QueryPage.svelte") },
  { path: "/datasets", title: "Datasets", load: () => import("./pages/datasets/DatasetsPage.svelte") },
  { path: "/datasets/:id", title: "Dataset", load: () => import("./pages/datasets/DatasetPage.svelte") },
  { path: "/train", title: "Train", load: () => import("./pages/train/TrainPage.svelte") },
  { path: "/train/:job", title: "Training", load: () => import("./pages/train/JobPage.svelte") },
  { path: "/models", title: "Models", load: () => import("./pages/models/ModelsPage.svelte") },
  { path: "/models/:name", title: "Model", load: () => import("./pages/models/ModelPage.svelte") },
  { path: "/settings", title: "Settings", load: () => import("./pages/settings/SettingsPage.svelte") },
];
