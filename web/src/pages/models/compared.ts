import type { ModelVersion } from "$lib/api/types";
import { percent } from "$lib/format";

/** Both versions' figures on the same test pictures, in words. `words`: between "version 3" and its figure. */
export function figures(c: NonNullable<ModelVersion["compared"]>): { words: string; what: string; now: string; before: string } {
  const what = c.measure === "map50" ? "mAP50" : "F1";
  if (c.measure === "accuracy" || c.now === null || c.before === null)
    return { words: "is right about", what: `right of ${c.pictures.toLocaleString()} test pictures`, now: c.right_now.toLocaleString(), before: c.right_before.toLocaleString() };
  return { words: `has ${what}`, what: `${what} on ${c.pictures.toLocaleString()} test pictures`, now: percent(c.now, 1), before: percent(c.before, 1) };
}
