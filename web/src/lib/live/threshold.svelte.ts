/** The one confidence threshold of a vision service on a part: the same number on the slider, the bars and the picture. */
import { remember, remembered } from "../remembered";

export const FALLBACK = 0.5;

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
