/** Every tag, label of boxes and dataset there is, for the pickers: what the filter hides can still be given. */
import { createQuery } from "@tanstack/svelte-query";
import { api } from "../api/client";
import { keys } from "../api/keys";
import type { Dataset, Facet, Facets } from "../api/types";
import { session } from "../session.svelte";

/** Call while a component is being set up. */
export function useChoices(): { readonly tags: Facet[]; readonly labels: Facet[]; readonly datasets: Facet[] } {
  const organization_id = () => session.organizationId;
  const facets = createQuery(() => ({
    queryKey: keys.items("facets", organization_id(), "all"),
    queryFn: ({ signal }) => api.get<Facets>("/items/facets", { organization_id: organization_id() }, signal),
  }));
  const datasets = createQuery(() => ({
    queryKey: keys.datasets(organization_id()),
    queryFn: () => api.get<Dataset[]>("/datasets", { organization_id: organization_id() }),
    select: (all: Dataset[]) => all.filter((one) => one.type === "binary"),
  }));
  const known = $derived((datasets.data ?? []).map((d) => ({ value: d.id, label: d.name, count: d.item_count })));
  return {
    get tags() {
      return facets.data?.tags ?? [];
    },
    /** Of boxes. */
    get labels() {
      return facets.data?.labels ?? [];
    },
    get datasets() {
      return known;
    },
  };
}
