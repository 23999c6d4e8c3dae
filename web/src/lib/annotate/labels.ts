/** Which label is on which number key. A label keeps its key; a new one takes the next free key, or that of the last of nine. */
import { remember, remembered } from "../remembered.ts";

export const DIGITS = 9;
export const LONGEST_LABEL = 100;

/** Why a name cannot be a label; null when it can. */
export function labelProblem(name: string): string | null {
  if (name.length > LONGEST_LABEL) return `A label has at most ${LONGEST_LABEL} characters.`;
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u001f]/.test(name)) return "A label is one line of text.";
  return null;
}

/** The labels on the keys 1–9: those chosen before, then the most frequent ones that fill the free keys. */
export function onDigits(chosen: readonly string[], known: readonly string[]): string[] {
  const fill = known.filter((label) => !chosen.includes(label));
  return [...chosen, ...fill].slice(0, DIGITS);
}

/** The keys after a label was used: unchanged if it has one. */
export function withLabel(onKeys: readonly string[], label: string): string[] {
  if (onKeys.includes(label)) return [...onKeys];
  return onKeys.length < DIGITS ? [...onKeys, label] : [...onKeys.slice(0, DIGITS - 1), label];
}

interface Kept {
  labels: string[];
  last: string;
}
/** Every dataset has its own keys; pictures outside of datasets share theirs. */
const key = (scope: string) => `box-labels.${scope || "all"}`;
export const keptLabels = (scope: string): Kept => ({ ...{ labels: [], last: "" }, ...remembered<Partial<Kept>>(key(scope), {}) });
export const keepLabels = (scope: string, kept: Kept): void => remember(key(scope), kept);
