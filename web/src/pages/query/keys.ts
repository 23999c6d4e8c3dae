/** A value of a reading as SQL names it, and what it is. */
export interface ReadingKey {
  name: string;
  /** Without where all of them are. */
  short: string;
  kind: "number" | "text" | "true or false" | "list" | "nothing";
}

const DEEPEST = 6;

/** The keys of what one method of a component said last, as `data.readings.celsius`; what is no plain word is in quotes. */
export function keysOf(latest: Record<string, unknown>, method: string): ReadingKey[] {
  const root = method === "Readings" ? "data.readings" : "data"; // sensors' values are one level deeper
  return inner(latest, root, 0).map((one) => ({ ...one, short: one.name.slice(root.length + 1) }));
}

function inner(values: Record<string, unknown>, path: string, depth: number): Omit<ReadingKey, "short">[] {
  return Object.entries(values).flatMap(([key, value]) => {
    const name = `${path}.${/^[A-Za-z_]\w*$/.test(key) ? key : `"${key.replaceAll('"', '""')}"`}`;
    const isInner = typeof value === "object" && value !== null && !Array.isArray(value) && depth < DEEPEST;
    return isInner ? inner(value as Record<string, unknown>, name, depth + 1) : [{ name, kind: kindOf(value) }];
  });
}

function kindOf(value: unknown): ReadingKey["kind"] {
  if (typeof value === "number") return "number";
  if (typeof value === "boolean") return "true or false";
  if (Array.isArray(value)) return "list";
  return value === null || value === undefined ? "nothing" : "text";
}
