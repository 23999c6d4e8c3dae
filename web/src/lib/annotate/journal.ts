/**
 * Changes of boxes that the app has not confirmed, kept in this browser until it has: a closed tab, a crash or a lost network
 * loses none. An entry says what a box shall be, not what to do to it, so sending one twice changes nothing, and of two
 * changes of one box only the newer counts.
 */
import type { Box } from "../api/types";

export interface Entry {
  row: number;
  /** The item's own id: after the app's data were replaced, the row may be another picture's. */
  itemId: string;
  boxId: string;
  /** Null: the box shall be gone. */
  box: Box | null;
  /** Tells this wish from an older or newer one for the same box. */
  stamp: string;
}

export interface Place {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

const PREFIX = "gleaner.unsaved-box.";

export class Journal {
  private readonly place: Place;
  /** Two people who share a browser do not send each other's changes. */
  private readonly userId: string;

  constructor(place: Place, userId: string) {
    this.place = place;
    this.userId = userId;
  }

  /** False when the browser keeps nothing (full, or forbidden): the page must not be closed then. */
  keep(entry: Entry): boolean {
    try {
      this.place.setItem(this.#key(entry), JSON.stringify(entry));
      return true;
    } catch {
      return false;
    }
  }

  /** Forgets the entry unless a newer one took its place (in another tab, for instance). */
  forget(entry: Entry): void {
    try {
      const key = this.#key(entry);
      const kept = this.place.getItem(key);
      if (kept !== null && (JSON.parse(kept) as Entry).stamp === entry.stamp) this.place.removeItem(key);
    } catch {
      /* what cannot be read was not kept */
    }
  }

  all(): Entry[] {
    const found: Entry[] = [];
    const start = this.#start();
    for (let i = 0; i < this.place.length; i++) {
      const key = this.place.key(i);
      if (!key?.startsWith(start)) continue;
      try {
        found.push(JSON.parse(this.place.getItem(key) ?? "") as Entry);
      } catch {
        /* written by nobody here */
      }
    }
    return found;
  }

  #start(): string {
    return `${PREFIX}${this.userId}.`;
  }
  #key(entry: Entry): string {
    return `${this.#start()}${entry.row}.${entry.boxId}`;
  }
}

/** A picture's boxes as they will be: the app's, with the unsaved changes on top. */
export function over(boxes: readonly Box[], changes: readonly Pick<Entry, "boxId" | "box">[]): Box[] {
  if (!changes.length) return boxes as Box[];
  const wanted = new Map(changes.map((c) => [c.boxId, c.box]));
  const out: Box[] = [];
  for (const box of boxes) {
    const now = wanted.get(box.id);
    if (now === undefined) out.push(box);
    else if (now) out.push(now);
    wanted.delete(box.id);
  }
  for (const box of wanted.values()) if (box) out.push(box);
  return out;
}
