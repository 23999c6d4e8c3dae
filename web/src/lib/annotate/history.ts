/** What was done to boxes, on any picture, so that it can be taken back and done again. */
import type { Box } from "../api/types";

/** One box before and after; null where there was none or is none any more. */
export interface Change {
  row: number;
  itemId: string;
  before: Box | null;
  after: Box | null;
}
export type Step = readonly Change[];

const KEEP = 500;
/** Presses of a key that follow each other this quickly are taken back together. */
const TOGETHER_MS = 900;

export class History {
  #done: { step: Step; kind: string; at: number }[] = [];
  #undone: Step[] = [];

  /** `kind` joins steps of the same kind on the same box that follow quickly, such as nudges. */
  add(step: Step, kind = "", at = 0): void {
    this.#undone = [];
    const last = this.#done.at(-1);
    const [one] = step;
    if (kind && last?.kind === kind && at - last.at < TOGETHER_MS && last.step.length === 1 && step.length === 1 && last.step[0]!.after?.id === one!.before?.id && last.step[0]!.row === one!.row) {
      this.#done[this.#done.length - 1] = { step: [{ ...one!, before: last.step[0]!.before }], kind, at };
      return;
    }
    this.#done.push({ step, kind, at });
    if (this.#done.length > KEEP) this.#done.shift();
  }

  clear(): void {
    this.#done = [];
    this.#undone = [];
  }

  get canUndo(): boolean {
    return this.#done.length > 0;
  }
  get canRedo(): boolean {
    return this.#undone.length > 0;
  }

  /** The changes to make to take the last step back; null when there is none. */
  undo(): Step | null {
    const last = this.#done.pop();
    if (!last) return null;
    this.#undone.push(last.step);
    return [...last.step].reverse().map(({ row, itemId, before, after }) => ({ row, itemId, before: after, after: before }));
  }

  redo(): Step | null {
    const step = this.#undone.pop();
    if (!step) return null;
    this.#done.push({ step, kind: "", at: 0 });
    return step;
  }
}
