/** Sensor readings as rows and lines. */
import { bytes, duration } from "$lib/format";

/** `{load: {"1m": 0.4}}` → `[["load.1m", 0.4]]`; lists and nulls stay values. */
export function flatten(readings: Record<string, unknown>, prefix = ""): [string, unknown][] {
  return Object.entries(readings).flatMap(([name, value]): [string, unknown][] => {
    const path = prefix + name;
    return value !== null && typeof value === "object" && !Array.isArray(value) ? flatten(value as Record<string, unknown>, `${path}.`) : [[path, value]];
  });
}

const UNITS: [RegExp, (n: number) => string][] = [
  [/(^|_)bytes$/, (n) => bytes(n)],
  [/(^|_)(percent|pct)$/, (n) => `${rounded(n)} %`],
  [/(^|_)(s|seconds)$/, (n) => (n >= 60 ? duration(n) : `${rounded(n)} s`)],
  [/(^|_)ms$/, (n) => `${rounded(n)} ms`],
  [/(^|_)hz$/, (n) => `${rounded(n)} Hz`],
  [/(^|_)(c|celsius)$/, (n) => `${rounded(n)} °C`],
];
const rounded = (n: number) => String(Number.isInteger(n) ? n : Number(n.toPrecision(4)));

/** The unit comes from the reading's name, as in `disk_free_bytes`. */
export function shownValue(value: unknown, name = ""): string {
  if (typeof value === "number") return UNITS.find(([pattern]) => pattern.test(name))?.[1](value) ?? rounded(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (value === null || value === undefined) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** An SVG path through the values, scaled to their own range; a flat line sits in the middle. */
export function sparkline(values: readonly number[], width: number, height: number): string {
  const low = Math.min(...values);
  const range = Math.max(...values) - low;
  const step = width / Math.max(1, values.length - 1);
  return values.map((v, i) => `${i ? "L" : "M"}${(i * step).toFixed(1)} ${(range ? height - 1 - ((v - low) / range) * (height - 2) : height / 2).toFixed(1)}`).join("");
}
