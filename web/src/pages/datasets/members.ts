import type { Dataset } from "$lib/api/types";
import { plural } from "$lib/format";

/** How many of what a dataset has. */
export const members = (dataset: Dataset): string =>
  dataset.type === "sequence" ? plural(dataset.sequence_count, "sequence") : plural(dataset.item_count, "picture");
