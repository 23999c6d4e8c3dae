/**
 * What can be done with pictures, for one or for thousands. The page changes at once; a failure takes the change back
 * and says why.
 */
import type { QueryClient } from "@tanstack/svelte-query";
import { api, asApiError, seg } from "../api/client";
import type { Dataset, Item, Ref } from "../api/types";
import { plural } from "../format";
import { toasts } from "../toasts.svelte";
import type { ItemStore } from "./items.svelte";
import { recentTags, rememberTag } from "./tags";

/** Rows in one request: small enough to answer in well under a second. */
const CHUNK = 5000;

export class Actions {
  recent = $state<string[]>(recentTags());

  constructor(
    private readonly items: ItemStore,
    private readonly client: QueryClient,
    private readonly organizationId: () => string,
    /** Rows left or came back: the list on the page follows. */
    private readonly ongone: (rows: number[]) => void,
    private readonly onback: () => void,
  ) {}

  async tag(rows: number[], tag: string): Promise<void> {
    this.recent = rememberTag(this.recent, tag);
    const done = await this.#change(rows, (item) => (item.tags.includes(tag) ? item : { ...item, tags: [...item.tags, tag].sort() }), "Not tagged", (part) =>
      api.post("/items/tags", { rows: part, add: [tag], remove: [] }),
    );
    if (done && rows.length > 1) toasts.good(`“${tag}” is on ${plural(rows.length, "picture")}`);
  }

  async untag(rows: number[], tag: string): Promise<void> {
    const done = await this.#change(rows, (item) => ({ ...item, tags: item.tags.filter((t) => t !== tag) }), "Tag not removed", (part) =>
      api.post("/items/tags", { rows: part, add: [], remove: [tag] }),
    );
    if (done && rows.length > 1) toasts.good(`“${tag}” is off ${plural(rows.length, "picture")}`);
  }

  /** Adds to the dataset of that name, making it first when it is new. */
  async addToDataset(rows: number[], name: string, known: Ref[]): Promise<void> {
    let dataset = known.find((d) => d.name === name);
    if (!dataset) {
      try {
        dataset = await api.post<Dataset>("/datasets", { name, organization_id: this.organizationId() });
      } catch (error) {
        toasts.failed(error, `Dataset “${name}” was not made`);
        return;
      }
    }
    const { id } = dataset;
    const done = await this.#change(rows, (item) => (item.datasets.some((d) => d.id === id) ? item : { ...item, datasets: [...item.datasets, { id, name }] }), "Not added", (part) =>
      api.post(`/datasets/${seg(id)}/items`, { rows: part, action: "add" }),
    );
    if (done) toasts.good(`${plural(rows.length, "picture")} in “${name}”`, { label: "Open", run: () => void import("../router.svelte").then(({ go }) => go(`/datasets/${seg(id)}`)) });
  }

  async removeFromDataset(rows: number[], dataset: Ref): Promise<void> {
    const done = await this.#change(rows, (item) => ({ ...item, datasets: item.datasets.filter((d) => d.id !== dataset.id) }), "Not removed", (part) =>
      api.post(`/datasets/${seg(dataset.id)}/items`, { rows: part, action: "remove" }),
    );
    if (!done) return;
    const back = () => void this.addToDataset(rows, dataset.name, [dataset]).then(this.onback);
    toasts.good(`${plural(rows.length, "picture")} removed from “${dataset.name}”`, { label: "Undo", run: back });
  }

  async delete(rows: number[]): Promise<void> {
    this.ongone(rows);
    const undo: string[] = [];
    try {
      for (const part of chunks(rows)) undo.push((await api.post<{ undo: string }>("/items/delete", { rows: part })).undo);
      toasts.show(`${plural(rows.length, "item")} deleted`, { kind: "info", action: { label: "Undo", run: () => void this.#undelete(undo, rows) } });
    } catch (error) {
      toasts.failed(error, "Not deleted");
      this.onback();
    }
    this.#refresh();
  }

  async #undelete(tokens: string[], rows: number[]): Promise<void> {
    try {
      for (const undo of tokens) await api.post("/items/undelete", { undo });
      toasts.good(`${plural(rows.length, "item")} restored`);
    } catch (error) {
      toasts.failed(error, "Not restored");
    }
    this.items.invalidate(rows);
    this.onback();
    this.#refresh();
  }

  async #change(rows: number[], change: (item: Item) => Item, failure: string, send: (rows: number[]) => Promise<unknown>): Promise<boolean> {
    const edit = this.items.edit(rows, change);
    try {
      for (const part of chunks(rows)) await send(part);
      edit.settled();
      return true;
    } catch (error) {
      edit.undo();
      toasts.failed(asApiError(error), failure);
      return false;
    } finally {
      this.#refresh();
    }
  }

  /** Counts on this page and the others follow now; the event from the server may come later. */
  #refresh(): void {
    for (const topic of ["items", "datasets", "dataset"]) void this.client.invalidateQueries({ queryKey: [topic] });
  }
}

function* chunks(rows: number[]): Generator<number[]> {
  for (let i = 0; i < rows.length; i += CHUNK) yield rows.slice(i, i + CHUNK);
}
