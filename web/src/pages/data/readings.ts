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

/** Every name that occurs, in the order of first sight. */
export function columns(rows: Flat[]): string[] {
  const names = new Set<string>();
  for (const row of rows) for (const name of Object.keys(row)) names.add(name);
  return [...names];
}

export const isNumber = (value: unknown): boolean => typeof value === "number" && Number.isFinite(value);

export function shown(value: unknown): string {
  if (value === undefined || value === null) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString() : Number(value.toPrecision(5)).toLocaleString(undefined, { maximumFractionDigits: 6 });
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}
