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
      (signal) => this.#fetch(signal),
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

  async #fetch(signal: AbortSignal): Promise<Uint32Array<ArrayBuffer>> {
    const rows = new Uint32Array(await api.bytes("/items/index", toAsked(this.filter(), this.organizationId()), signal));
    this.selection.keepOnly(rows);
    return rows;
  }

  #gone(rows: number[]): void {
    const gone = new Set(rows);
    this.index.drop(gone);
    this.selection.set(rows, false);
  }
}
