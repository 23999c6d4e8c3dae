/** Sends changed boxes to the app, again and again until it has them, and says on the page how that stands. */
import { SvelteMap } from "svelte/reactivity";
import { api, asApiError, seg, type ApiError } from "../api/client";
import type { Box, Item } from "../api/types";
import { events } from "../events.svelte";
import { plural } from "../format";
import { session } from "../session.svelte";
import { toasts } from "../toasts.svelte";
import { Journal, over, type Entry } from "./journal";

const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 15_000;
const AT_ONCE = 6;
/** A confirmed change stays on top this long: an answer that was under way before it does not bring the old box back. */
const LINGER_MS = 3000;

type Saved = (row: number, boxId: string, box: Box | null) => void;
interface Held extends Entry {
  isSaved: boolean;
}

export class Outbox {
  /** By row, then by box. */
  #held = new SvelteMap<number, Held[]>();
  #waiting = $state(0);
  #trouble = $state.raw<ApiError | null>(null);
  #isSending = false;
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #journal: Journal | null = null;
  #isKept = true;
  /** Of an earlier visit: sent only once their pictures are known to be the same. */
  #unchecked: Entry[] = [];
  #listeners = new Set<Saved>();

  /** How many changes the app does not have yet. */
  get waiting(): number {
    return this.#waiting;
  }
  /** Why they are not there, once an attempt has failed. */
  get trouble(): ApiError | null {
    return this.#waiting ? this.#trouble : null;
  }

  boxesOf(row: number, boxes: readonly Box[]): Box[] {
    return over(boxes, this.#held.get(row) ?? []);
  }

  /** Boxes of a picture that are not saved yet. */
  unsavedOf(row: number): number {
    return (this.#held.get(row) ?? []).filter((one) => !one.isSaved).length;
  }

  onSaved(listener: Saved): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  want(row: number, itemId: string, boxId: string, box: Box | null): void {
    const entry: Held = { row, itemId, boxId, box, stamp: `${Date.now()}.${Math.random()}`, isSaved: false };
    this.#isKept = (this.#kept()?.keep(plain(entry)) ?? false) && this.#isKept;
    this.#set(entry);
    void this.#send();
  }

  /** Follows the user's log-in: what an earlier visit could not send is sent now. Returns how to stop. */
  start(): () => void {
    const journal = this.#kept();
    this.#unchecked = journal?.all() ?? [];
    for (const entry of this.#unchecked) this.#set({ ...entry, isSaved: false });
    if (this.#unchecked.length) void this.#send();
    const again = () => {
      this.#attempt = 0;
      void this.#send();
    };
    const warn = (event: BeforeUnloadEvent) => {
      if (this.#waiting && !this.#isKept) event.preventDefault();
    };
    addEventListener("online", again);
    addEventListener("beforeunload", warn);
    return () => {
      removeEventListener("online", again);
      removeEventListener("beforeunload", warn);
      clearTimeout(this.#timer);
      this.#journal = null;
      this.#unchecked = [];
      this.#held.clear();
      this.#count();
    };
  }

  retry(): void {
    clearTimeout(this.#timer);
    this.#attempt = 0;
    void this.#send();
  }

  #kept(): Journal | null {
    const user = session.me?.user.id;
    if (!this.#journal && user) this.#journal = new Journal(localStorage, user);
    return this.#journal;
  }

  /** Rows of another life of the app are named and dropped: they would be boxes on the wrong picture. */
  async #check(): Promise<void> {
    const entries = this.#unchecked;
    const { items } = await api.post<{ items: Item[] }>("/items/lookup", { rows: [...new Set(entries.map((e) => e.row))] });
    if (this.#unchecked !== entries) return; // logged out meanwhile
    this.#unchecked = [];
    const ids = new Map(items.map((item) => [item.row, item.id]));
    const lost = entries.filter((entry) => ids.get(entry.row) !== entry.itemId);
    for (const entry of lost) this.#drop(entry);
    if (lost.length) toasts.show(`${plural(lost.length, "unsaved box", "unsaved boxes")} of an earlier visit dropped`, { kind: "bad", detail: "Their pictures are not here any more." });
  }

  async #send(): Promise<void> {
    if (this.#isSending) return;
    clearTimeout(this.#timer);
    this.#isSending = true;
    try {
      if (this.#unchecked.length) await this.#check();
      for (let next = this.#next(); next.length; next = this.#next()) {
        const failed = (await Promise.all(next.map((entry) => this.#sendOne(entry)))).find(Boolean);
        if (failed) throw failed;
        this.#attempt = 0;
        this.#trouble = null;
      }
    } catch (caught) {
      this.#trouble = asApiError(caught);
      const wait = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempt++);
      this.#timer = setTimeout(() => void this.#send(), wait * (0.75 + Math.random() / 2));
    } finally {
      this.#isSending = false;
    }
  }

  #next(): Held[] {
    const out: Held[] = [];
    for (const held of this.#held.values())
      for (const one of held) {
        if (one.isSaved) continue;
        out.push(one);
        if (out.length === AT_ONCE) return out;
      }
    return out;
  }

  /** The reason when it must be tried again. */
  async #sendOne(entry: Held): Promise<ApiError | null> {
    const path = `/items/${entry.row}/boxes/${seg(entry.boxId)}`;
    try {
      if (entry.box) {
        const { id: _, ...body } = entry.box;
        await api.put(path, body);
      } else await api.delete(path);
    } catch (caught) {
      const error = asApiError(caught);
      if (mayWork(error)) return error;
      if (entry.box || error.status !== 404) {
        toasts.failed(error, "A box was not saved");
        this.#drop(entry);
        return null;
      }
      // It is gone already, as wished.
    }
    this.#confirmed(entry);
    return null;
  }

  #confirmed(entry: Held): void {
    this.#journal?.forget(entry);
    for (const listener of this.#listeners) listener(entry.row, entry.boxId, entry.box);
    const now = this.#held.get(entry.row) ?? [];
    if (!now.some((one) => one.stamp === entry.stamp)) return; // changed again meanwhile
    this.#held.set(entry.row, now.map((one) => (one.stamp === entry.stamp ? { ...one, isSaved: true } : one)));
    this.#count();
    setTimeout(() => this.#drop(entry), LINGER_MS);
  }

  #set(entry: Held): void {
    const others = (this.#held.get(entry.row) ?? []).filter((one) => one.boxId !== entry.boxId);
    this.#held.set(entry.row, [...others, entry]);
    this.#count();
  }

  #drop(entry: Entry): void {
    this.#journal?.forget(entry);
    const left = (this.#held.get(entry.row) ?? []).filter((one) => one.stamp !== entry.stamp);
    if (left.length) this.#held.set(entry.row, left);
    else this.#held.delete(entry.row);
    this.#count();
  }

  #count(): void {
    let waiting = 0;
    for (const held of this.#held.values()) for (const one of held) if (!one.isSaved) waiting++;
    this.#waiting = waiting;
    if (!waiting) this.#trouble = null;
  }
}

const plain = ({ row, itemId, boxId, box, stamp }: Held): Entry => ({ row, itemId, boxId, box, stamp });

/** Not reached, overloaded, restarted or logged out: the same request can succeed later. */
function mayWork(error: ApiError): boolean {
  return error.status === 0 || error.status === 401 || error.status === 408 || error.status === 429 || error.status >= 500;
}

export const outbox = new Outbox();

/** Call in the frame of the logged-in pages: `$effect(() => followOutbox())`. */
export function followOutbox(): () => void {
  const stop = outbox.start();
  const off = $effect.root(() => {
    $effect(() => {
      if (events.state === "open") outbox.retry();
    });
  });
  return () => {
    off();
    stop();
  };
}
