/** Comparing and joining configurations, resource by resource. */
import type { MachineConfig, ResourceConfig } from "../api/types";
import { KINDS, type Kind } from "./resources.ts";

/** Equal whatever the order of keys. */
export function same(a: unknown, b: unknown): boolean {
  return stable(a) === stable(b);
}
function stable(value: unknown): string {
  return JSON.stringify(value, (_, v: unknown) =>
    v !== null && typeof v === "object" && !Array.isArray(v) ? Object.fromEntries(Object.entries(v).filter(([, x]) => x !== undefined).sort(([x], [y]) => (x < y ? -1 : 1))) : v,
  ) ?? "";
}

export type Change = { what: string; how: "added" | "removed" | "changed" };

export function changes(from: MachineConfig, to: MachineConfig): Change[] {
  const found: Change[] = [];
  for (const kind of KINDS) {
    const before = new Map((from[kind] ?? []).map((r) => [r.name, r]));
    for (const r of to[kind] ?? []) {
      const old = before.get(r.name);
      if (!old) found.push({ what: r.name, how: "added" });
      else if (!same(old, r)) found.push({ what: r.name, how: "changed" });
      before.delete(r.name);
    }
    for (const name of before.keys()) found.push({ what: name, how: "removed" });
  }
  for (const key of new Set([...Object.keys(from), ...Object.keys(to)]))
    if (!KINDS.includes(key as Kind) && !same(from[key], to[key])) found.push({ what: key, how: from[key] === undefined ? "added" : to[key] === undefined ? "removed" : "changed" });
  return found;
}

/** My changes since `base`, put on top of `theirs`. Where both changed one resource, mine is kept and named in `both`. */
export function merge(base: MachineConfig, mine: MachineConfig, theirs: MachineConfig): { config: MachineConfig; both: string[] } {
  const both: string[] = [];
  const config: MachineConfig = { ...theirs };
  for (const key of new Set([...Object.keys(base), ...Object.keys(mine)])) {
    if (KINDS.includes(key as Kind) || same(base[key], mine[key])) continue;
    if (!same(base[key], theirs[key])) both.push(key);
    if (mine[key] === undefined) delete config[key];
    else config[key] = mine[key];
  }
  for (const kind of KINDS) {
    const merged = mergeList(base[kind] ?? [], mine[kind] ?? [], theirs[kind] ?? [], both);
    if (merged.length || config[kind]) config[kind] = merged;
  }
  return { config, both };
}

function mergeList(base: ResourceConfig[], mine: ResourceConfig[], theirs: ResourceConfig[], both: string[]): ResourceConfig[] {
  const find = (list: ResourceConfig[], name: string) => list.find((r) => r.name === name);
  const result: ResourceConfig[] = [];
  for (const r of theirs) {
    const old = find(base, r.name);
    const own = find(mine, r.name);
    const changedByMe = !same(old, own);
    const changedByThem = !same(old, r);
    if (changedByMe && changedByThem && old) both.push(r.name);
    if (!changedByMe) result.push(r);
    else if (own) result.push(own);
    else if (changedByThem) result.push(r); // I deleted what they changed: keep it, and say so
  }
  for (const r of mine) if (!find(theirs, r.name) && !same(find(base, r.name), r)) result.push(r);
  return result;
}
