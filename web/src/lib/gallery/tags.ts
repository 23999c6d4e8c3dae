/** Rules and memory of tags: what a name may hold, and which ones were used last. */
import { remember, remembered } from "../remembered";

const RECENT_KEY = "recent-tags";
const KEEP = 9;
const MAX_LENGTH = 100;

/** Why the name cannot be a tag, in words that say what to do; null when it can. */
export function tagProblem(name: string): string | null {
  if (!name) return null;
  if (name.length > MAX_LENGTH) return `A tag has at most ${MAX_LENGTH} characters.`;
  const bad = [...name].find((c) => !/[A-Za-z0-9_-]/.test(c));
  if (bad === undefined) return null;
  const shown = bad === " " ? "a space" : `“${bad}”`;
  return `A tag cannot contain ${shown}: use letters, digits, _ and -.`;
}

/** "red star" → "red_star", offered when a name has to change. */
export const suggestTag = (name: string): string =>
  name
    .normalize("NFKD")
    .replace(/[\u0300-\u036f]/g, "")
    .trim()
    .replace(/[^A-Za-z0-9_-]+/g, "_")
    .slice(0, MAX_LENGTH);

export const recentTags = (): string[] => remembered<string[]>(RECENT_KEY, []).slice(0, KEEP);

/** A known tag keeps its number key; a new one takes the next free key, or that of the one used longest ago. */
export function rememberTag(recent: string[], tag: string): string[] {
  if (recent.includes(tag)) return recent;
  const next = recent.length < KEEP ? [...recent, tag] : [...recent.slice(1), tag];
  remember(RECENT_KEY, next);
  return next;
}

export interface Choice {
  value: string;
  count?: number;
  isNew?: boolean;
}

/** Existing names that fit what was typed, best first, then the offer to make a new one. */
export function choices(typed: string, known: { value: string; count: number }[], recent: string[], has: (v: string) => boolean, limit = 8): Choice[] {
  const needle = typed.toLowerCase();
  const rank = (value: string): number => {
    const at = value.toLowerCase().indexOf(needle);
    if (at < 0) return -1;
    if (!needle) return recent.includes(value) ? 1000 - recent.indexOf(value) : 0;
    return at === 0 ? 2 : 1;
  };
  const fitting = known
    .filter((k) => !has(k.value))
    .map((k) => ({ ...k, rank: rank(k.value) }))
    .filter((k) => k.rank >= 0)
    .sort((a, b) => b.rank - a.rank || b.count - a.count || a.value.localeCompare(b.value))
    .slice(0, limit)
    .map(({ value, count }): Choice => ({ value, count }));
  if (typed && !has(typed) && !known.some((k) => k.value === typed)) fitting.push({ value: typed, isNew: true });
  // What was typed in full comes first, so that Enter means it.
  const exact = fitting.findIndex((c) => c.value === typed && !c.isNew);
  if (exact > 0) fitting.unshift(...fitting.splice(exact, 1));
  return fitting;
}
