/** What reports and pages call a picture that no label fits. */
export const NONE_OF_THESE = "none of these";

/** Twelve hues of OKLCH that people tell apart, each in two shades: 24 colours. */
const HUES = [25, 50, 75, 100, 130, 155, 185, 220, 250, 285, 320, 355];
const SHADES = 2;

/** Labels that begin with a colour word have its hue, in variants that differ enough for two of them side by side. */
const NAMED: Record<string, number> = { red: 25, orange: 55, brown: 65, yellow: 100, gold: 90, lime: 125, green: 145, teal: 185, turquoise: 190, cyan: 205, blue: 255, navy: 265, indigo: 278, purple: 305, violet: 295, magenta: 330, pink: 355 };
const GREYS = new Set(["black", "grey", "gray", "silver", "white"]);
/** Degrees of hue beside the colour's own, and shade. */
const VARIANTS = [
  [0, 0],
  [-10, 1],
  [16, 1],
  [-10, 0],
  [0, 1],
  [16, 0],
] as const;

/** FNV-1a with a last mix: short names that differ in one letter end far apart. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  return (h ^ (h >>> 13)) >>> 0;
}

const color = (hue: number, shade: number) => `oklch(var(--label-${shade + 1}) ${hue})`;

/** One colour per label, the same on every page and in every session; no colour for the absence of one. */
export function labelColor(label: string): string {
  if (label === NONE_OF_THESE) return "var(--muted)";
  const h = hash(label);
  const [word = "", rest] = label.toLowerCase().split(/[^a-z]+/, 2);
  if (GREYS.has(word)) return `color-mix(in oklab, ${color(HUES[h % HUES.length]!, h % SHADES)} 20%, var(--muted))`;
  const named = Object.hasOwn(NAMED, word) ? NAMED[word] : undefined;
  if (named !== undefined) {
    const [turn, shade] = VARIANTS[rest ? h % VARIANTS.length : 0]!;
    return color((named + turn + 360) % 360, shade);
  }
  return color(HUES[h % HUES.length]!, (h >>> 8) % SHADES);
}
