/** Readings are free-form; a chart and a table need flat names. */

export type Flat = Record<string, unknown>;

/** `{"cpu": {"load": 1}}` → `{"cpu.load": 1}`; lists stay as they are. */
export function flatten(readings: Record<string, unknown>, prefix = ""): Flat {
  const out: Flat = {};
  for (const [name, value] of Object.entries(readings)) {
    const path = prefix ? `${prefix}.${name}` : name;
    if (value !== null && typeof value === "object" && !Array.isArray(value)) Object.assign(out, flatten(value as Record<string, unknown>, path));
    else out[path] = value;
  }
  return out;
}

const UNITS = ["percent", "pct", "bytes", "celsius", "c", "ms", "s", "mm", "m", "volts", "amps", "hz"];

/** Names that can share an axis: of one unit by their ending, else of one order of magnitude (three decades). */
export function together(names: string[], rows: Flat[]): string[][] {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const unit = UNITS.find((u) => name.toLowerCase().endsWith(`_${u}`));
    const most = Math.max(0, ...rows.map((r) => (isNumber(r[name]) ? Math.abs(r[name] as number) : 0)));
    const key = unit ?? `~${most > 0 ? Math.floor(Math.log10(most) / 3) : 0}`;
    groups.set(key, [...(groups.get(key) ?? []), name]);
  }
  return [...groups.values()];
}

/** 79100000000 → "79.1 G": a tick stays short. */
export function short(value: number): string {
  const size = Math.abs(value);
  const step = [1e12, 1e9, 1e6, 1e4].findIndex((s) => size >= s);
  if (step >= 0) return `${Number((value / [1e12, 1e9, 1e6, 1e3][step]!).toPrecision(3))} ${["T", "G", "M", "k"][step]}`;
  return Number(value.toPrecision(3)).toString();
}

/** Every name that occurs, sorted, so that nothing jumps when rows change. */
export function columns(rows: Flat[]): string[] {
  const names = new Set<string>();
  for (const row of rows) for (const name of Object.keys(row)) names.add(name);
  return [...names].sort();
}

export const isNumber = (value: unknown): boolean => typeof value === "number" && Number.isFinite(value);

export function shown(value: unknown): string {
  if (value === undefined || value === null) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString() : Number(value.toPrecision(5)).toLocaleString(undefined, { maximumFractionDigits: 6 });
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}
