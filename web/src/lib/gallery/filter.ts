/** The filter of the data pages: one value, kept in the page's address and sent with every request. */

/** Names that may be repeated: OR inside a name, AND between names. */
export const LIST_KEYS = [
  "location_id",
  "machine_id",
  "part_id",
  "component_name",
  "component_type",
  "method",
  "mime_type",
  "tag",
  "label",
  "dataset_id",
] as const;
export type ListKey = (typeof LIST_KEYS)[number];

export type Kind = "image" | "point_cloud" | "file" | "reading";

/** Presets of the time range, by their length in seconds. */
export const PRESETS = {
  "1h": { seconds: 3600, title: "Last hour" },
  "24h": { seconds: 86_400, title: "Last 24 hours" },
  "7d": { seconds: 7 * 86_400, title: "Last 7 days" },
  "30d": { seconds: 30 * 86_400, title: "Last 30 days" },
} as const;
export type Preset = keyof typeof PRESETS;

export interface Filter {
  lists: Partial<Record<ListKey, string[]>>;
  tagged?: "tagged" | "untagged";
  boxed?: "boxed" | "unboxed";
  kind?: Kind;
  search?: string;
  /** The row of a picture: only what looks like it. */
  near?: number;
  /** The row of a picture: only what shows something similar. */
  similar?: number;
  /** Of pictures of one camera that look the same only the newest. */
  once?: boolean;
  /** A moving range ("the last hour"); excludes start and end. */
  preset?: Preset;
  /** UTC ISO 8601. */
  start?: string;
  end?: string;
}

export const EMPTY: Filter = { lists: {} };

const KINDS: readonly string[] = ["image", "point_cloud", "file", "reading"];

export function parseFilter(params: URLSearchParams): Filter {
  const filter: Filter = { lists: {} };
  for (const key of LIST_KEYS) {
    const values = [...new Set(params.getAll(key))].filter(Boolean);
    if (values.length) filter.lists[key] = values;
  }
  const tagged = params.get("tagged");
  if (tagged === "tagged" || tagged === "untagged") filter.tagged = tagged;
  const boxed = params.get("boxed");
  if (boxed === "boxed" || boxed === "unboxed") filter.boxed = boxed;
  const kind = params.get("kind");
  if (kind && KINDS.includes(kind)) filter.kind = kind as Kind;
  const search = params.get("search");
  if (search) filter.search = search;
  const near = Number(params.get("near"));
  if (Number.isSafeInteger(near) && near > 0) filter.near = near;
  const similar = Number(params.get("similar"));
  if (Number.isSafeInteger(similar) && similar > 0) filter.similar = similar;
  if (params.get("once") === "true") filter.once = true;
  const preset = params.get("time");
  if (preset && preset in PRESETS) filter.preset = preset as Preset;
  else {
    const start = params.get("start");
    const end = params.get("end");
    if (start) filter.start = start;
    if (end) filter.end = end;
  }
  return filter;
}

/** What the page's address holds: a preset stays a preset, so that a shared link moves with the clock. */
export function toAddress(filter: Filter): URLSearchParams {
  const params = baseParams(filter);
  if (filter.preset) params.set("time", filter.preset);
  else setRange(params, filter.start, filter.end);
  return params;
}

/** What the server is asked. */
export function toQuery(filter: Filter, nowMs: number, organizationId?: string): URLSearchParams {
  const params = baseParams(filter);
  if (organizationId) params.set("organization_id", organizationId);
  const { start, end } = range(filter, nowMs);
  setRange(params, start, end);
  return params;
}

/** The same as the API client takes it. */
export function toAsked(filter: Filter, organizationId: string, nowMs = Date.now()): Record<string, string[]> {
  const params = toQuery(filter, nowMs, organizationId);
  return Object.fromEntries([...new Set(params.keys())].map((name) => [name, params.getAll(name)]));
}

function range(filter: Filter, nowMs: number): { start?: string; end?: string } {
  if (!filter.preset) return { start: filter.start, end: filter.end };
  // Whole minutes: the same query for a minute, so that caches and in-flight requests are shared.
  const now = Math.floor(nowMs / 60_000) * 60_000;
  return { start: new Date(now - PRESETS[filter.preset].seconds * 1000).toISOString() };
}

function setRange(params: URLSearchParams, start?: string, end?: string): void {
  if (start) params.set("start", start);
  if (end) params.set("end", end);
}

function baseParams(filter: Filter): URLSearchParams {
  const params = new URLSearchParams();
  for (const key of LIST_KEYS) for (const value of filter.lists[key] ?? []) params.append(key, value);
  if (filter.tagged) params.set("tagged", filter.tagged);
  if (filter.boxed) params.set("boxed", filter.boxed);
  if (filter.kind) params.set("kind", filter.kind);
  if (filter.search) params.set("search", filter.search);
  if (filter.near) params.set("near", String(filter.near));
  if (filter.similar) params.set("similar", String(filter.similar));
  if (filter.once) params.set("once", "true");
  return params;
}

export function toggleValue(filter: Filter, key: ListKey, value: string): Filter {
  const had = filter.lists[key] ?? [];
  const values = had.includes(value) ? had.filter((v) => v !== value) : [...had, value];
  const lists = { ...filter.lists };
  if (values.length) lists[key] = values;
  else delete lists[key];
  // "untagged" together with a tag can match nothing: the newer choice wins.
  const boxed = key === "label" && filter.boxed === "unboxed" ? undefined : filter.boxed;
  return { ...filter, lists, boxed, tagged: key === "tag" ? undefined : filter.tagged };
}

export function setTagged(filter: Filter, tagged: Filter["tagged"]): Filter {
  const lists = { ...filter.lists };
  if (tagged) delete lists.tag;
  return { ...filter, lists, tagged };
}

export function setBoxed(filter: Filter, boxed: Filter["boxed"]): Filter {
  const lists = { ...filter.lists };
  if (boxed === "unboxed") delete lists.label;
  return { ...filter, lists, boxed };
}

/** Keeps the tab (kind), drops everything else. */
export function cleared(filter: Filter): Filter {
  return { lists: {}, kind: filter.kind };
}

export function isNarrowed(filter: Filter): boolean {
  const { kind: _kind, lists, ...rest } = filter;
  return Object.keys(lists).length > 0 || Object.values(rest).some(Boolean);
}
