/** The state behind a page of pictures: list, what is known about them, selection, and what can be done. */
import type { QueryClient } from "@tanstack/svelte-query";
import { api } from "../api/client";
import type { Item } from "../api/types";
import { events } from "../events.svelte";
import { toasts } from "../toasts.svelte";
import { plural } from "../format";
import { Actions } from "./actions.svelte";
import { downloadItems, MAX_FILES } from "./download";
import { toAsked, type Filter } from "./filter";
import { RowIndex } from "./index.svelte";
import { ItemStore } from "./items.svelte";
import { Selection } from "./selection.svelte";

const LOOKUP_CHUNK = 500;
/** More than fit on a screen: shown before the rest of a long list is here. */
const FIRST_ROWS = 1000;

export class Workspace {
  readonly selection = new Selection();
  readonly items = new ItemStore(async (rows) => (await api.post<{ items: Item[] }>("/items/lookup", { rows })).items);
  readonly index: RowIndex;
  readonly actions: Actions;
  /** The grid says so: newest in view, the mouse at rest. */
  canGrow = $state(true);
  isViewing = $state(false);
  isDownloading = $state(false);

  constructor(
    client: QueryClient,
    private readonly filter: () => Filter,
    private readonly organizationId: () => string,
  ) {
    this.index = new RowIndex(
      (signal, onBeginning) => this.#fetch(signal, onBeginning),
      () => ({ grow: this.canGrow && this.selection.size === 0, change: !this.isViewing }),
    );
    this.actions = new Actions(this.items, client, organizationId, (rows) => this.#gone(rows), () => this.index.reload());
  }

  /** Follows the server until the returned function is called. */
  listen(): () => void {
    const off = [
      events.on("items_added", () => this.index.touch()),
      events.on("items_changed", ({ rows }) => {
        this.items.invalidate(rows);
        this.index.touch();
      }),
      events.on("dataset_changed", () => this.index.touch()),
    ];
    return () => {
      for (const stop of off) stop();
      this.index.close();
    };
  }

  async download(): Promise<void> {
    const rows = this.selection.rows();
    if (rows.length > MAX_FILES) return void toasts.show(`${plural(rows.length, "picture")} are too many for one download`, { kind: "bad", detail: `Select at most ${MAX_FILES.toLocaleString()}.` });
    this.isDownloading = true;
    const note = rows.length > 20 ? toasts.show(`Collecting ${plural(rows.length, "picture")}…`) : null;
    if (note !== null) toasts.hold(note);
    try {
      const items: Item[] = [];
      for (let i = 0; i < rows.length; i += LOOKUP_CHUNK) items.push(...(await this.items.loadAll(rows.slice(i, i + LOOKUP_CHUNK))));
      await downloadItems(items, () => {});
    } catch (error) {
      toasts.failed(error, "Not downloaded");
    } finally {
      this.isDownloading = false;
      if (note !== null) toasts.dismiss(note);
    }
  }

  async #fetch(signal: AbortSignal, onBeginning: (rows: Uint32Array) => void): Promise<Uint32Array<ArrayBuffer>> {
    const asked = toAsked(this.filter(), this.organizationId());
    const begun = (bytes: Uint8Array) => onBeginning(new Uint32Array(bytes.buffer as ArrayBuffer, 0, bytes.length >> 2));
    const rows = new Uint32Array(await api.streamed("/items/index", asked, signal, FIRST_ROWS * 4, begun));
    this.selection.keepOnly(rows);
    return rows;
  }

  #gone(rows: number[]): void {
    const gone = new Set(rows);
    this.index.drop(gone);
    this.selection.set(rows, false);
  }
}
