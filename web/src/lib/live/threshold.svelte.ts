/** The one confidence threshold of a vision service on a part: the same number on the slider, the bars and the picture. */
import type { MlModel } from "../api/types";
import { remember, remembered } from "../remembered";

export const FALLBACK = 0.5;

/** What the deployed model's report suggests for this vision service, if it is one of ours. */
export function suggestedThreshold(models: readonly MlModel[], part: string, vision: string): number | null {
  for (const model of models) {
    const deployed = model.deployments.find((d) => d.part.id === part && d.vision === vision);
    if (!deployed) continue;
    const version = model.versions.find((v) => v.version === deployed.version) ?? model.versions[0];
    return version?.suggested_threshold ?? null;
  }
  return null;
}

export class Threshold {
  #chosen = $state<number | null>(null);
  #suggested = $state<number | null>(null);
  #key = "";

  /** `part` and `vision` name whose threshold it is; `suggested` may arrive later. */
  show(part: string, vision: string, suggested: number | null) {
    this.#key = `threshold.${part}.${vision}`;
    this.#chosen = remembered<number | null>(this.#key, null);
    this.#suggested = suggested;
  }
  get value(): number {
    return this.#chosen ?? this.#suggested ?? FALLBACK;
  }
  get suggested() {
    return this.#suggested;
  }
  get isChosen() {
    return this.#chosen !== null;
  }
  choose(value: number | null) {
    this.#chosen = value;
    remember(this.#key, value);
  }
}

export const confidence = (c: number) => c.toFixed(2);
