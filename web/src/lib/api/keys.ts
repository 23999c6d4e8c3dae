/** TanStack Query keys: one place, so that events can invalidate what pages read. The first word is the topic. */
export const keys = {
  machines: (organization: string) => ["machines", organization] as const,
  machine: (id: string) => ["machine", id] as const,
  partStatus: (id: string) => ["part-status", id] as const,
  captureHours: (id: string) => ["capture-hours", id] as const,
  partConfig: (id: string) => ["part-config", id] as const,
  partHistory: (id: string) => ["part-config", id, "history"] as const,
  catalog: () => ["catalog"] as const,
  locations: (organization: string) => ["locations", organization] as const,
  apiKeys: (organization: string) => ["api-keys", organization] as const,
  /** Item lists, facets and looked-up items: `["items", …anything]`. */
  items: (...rest: unknown[]) => ["items", ...rest] as const,
  readings: (...rest: unknown[]) => ["readings", ...rest] as const,
  datasets: (organization: string) => ["datasets", organization] as const,
  dataset: (id: string) => ["dataset", id] as const,
  views: (organization: string) => ["views", organization] as const,
  queries: (organization: string) => ["queries", organization] as const,
  pipelines: (organization: string) => ["pipelines", organization] as const,
  jobs: (organization: string) => ["jobs", organization] as const,
  job: (id: string) => ["job", id] as const,
  models: (organization: string) => ["models", organization] as const,
  model: (name: string) => ["model", name] as const,
};
