/**
 * What is known about the pictures in view. Cells ask by row number; one request a moment fetches what is missing.
 * A changed item is replaced, never edited in place, so that exactly its own cell redraws.
 */
import { SvelteMap } from "svelte/reactivity";
import type { Box, Item } from "../api/types";

const BATCH = 500;
/** The request waits this long for more cells to ask: a fast scroll makes a few requests, not hundreds. */
const GATHER_MS = 40;
const KEEP = 20_000;

export class ItemStore {
  #items = new SvelteMap<number, Item>();
  #missing = new Set<number>();
  #wanted: Uint32Array | number[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #busy = false;
  #again = false;
  /** Rows with an edit that the server has not confirmed: a lookup in flight must not undo it on screen. */
  #pending = new Map<number, number>();

  constructor(private readonly fetchItems: (rows: number[]) => Promise<Item[]>) {}

  get(row: number): Item | undefined {
    return this.#items.get(row);
  }

  /** Says which rows are in view now; replaces what was asked before. */
  want(rows: Uint32Array | number[]): void {
    this.#wanted = rows;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#fetch(), GATHER_MS);
  }

  async load(row: number): Promise<Item | undefined> {
    if (!this.#items.has(row)) this.#take(await this.fetchItems([row]));
    return this.#items.get(row);
  }

  async loadAll(rows: number[]): Promise<Item[]> {
    const absent = rows.filter((row) => !this.#items.has(row));
    for (let i = 0; i < absent.length; i += BATCH) this.#take(await this.fetchItems(absent.slice(i, i + BATCH)));
    return rows.flatMap((row) => this.#items.get(row) ?? []);
  }

  /** Applies an edit on screen at once. Returns how to take it back; call `settled` when the server has answered. */
  edit(rows: Iterable<number>, change: (item: Item) => Item): { undo: () => void; settled: () => void } {
    const before: Item[] = [];
    for (const row of rows) {
      const item = this.#items.get(row);
      if (!item) continue;
      before.push(item);
      this.#pending.set(row, (this.#pending.get(row) ?? 0) + 1);
      this.#items.set(row, change(item));
    }
    const settled = () => {
      for (const { row } of before) {
        const left = (this.#pending.get(row) ?? 1) - 1;
        if (left > 0) this.#pending.set(row, left);
        else this.#pending.delete(row);
      }
    };
    return {
      settled,
      undo: () => {
        settled();
        for (const item of before) this.#items.set(item.row, item);
      },
    };
  }

  /** A box is on the server now; null: it is gone there. */
  setBox(row: number, id: string, box: Box | null): void {
    const item = this.#items.get(row);
    if (!item) return;
    const others = item.boxes.filter((one) => one.id !== id);
    this.#items.set(row, { ...item, boxes: box ? [...others, box] : others });
  }

  /** The server says that rows changed (null: any of them): what is in view is read again, the rest on next sight. */
  invalidate(rows: number[] | null): void {
    const inView = new Set(this.#wanted);
    const stale = (rows ?? [...this.#items.keys()]).filter((row) => this.#items.has(row));
    for (const row of stale) {
      if (inView.has(row)) this.#missing.add(row);
      else this.#items.delete(row);
    }
    if (this.#missing.size) void this.#fetch();
  }

  async #fetch(): Promise<void> {
    if (this.#busy) {
      this.#again = true;
      return;
    }
    const rows = [...this.#wanted].filter((row) => this.#missing.has(row) || !this.#items.has(row)).slice(0, BATCH);
    this.#missing.clear();
    if (!rows.length) return;
    this.#busy = true;
    try {
      this.#take(await this.fetchItems(rows));
      this.#prune();
    } catch {
      // The pictures are shown all the same; the next scroll or event asks again.
    } finally {
      this.#busy = false;
      if (this.#again) {
        this.#again = false;
        void this.#fetch();
      }
    }
  }

  #take(items: Item[]): void {
    for (const item of items) if (!this.#pending.has(item.row)) this.#items.set(item.row, item);
  }

  #prune(): void {
    if (this.#items.size <= KEEP) return;
    const inView = new Set(this.#wanted);
    for (const row of this.#items.keys()) {
      if (this.#items.size <= KEEP / 2) break;
      if (!inView.has(row) && !this.#pending.has(row)) this.#items.delete(row);
    }
  }
}
