/** A report names pictures by their ids; the gallery knows them by row. */
import { api } from "$lib/api/client";
import type { Item } from "$lib/api/types";

const LOOKUP = 500;
/** A dataset beyond this is not walked for a handful of pictures. */
const MOST = 20_000;

export async function rowsOfDataset(datasetId: string): Promise<Map<string, number>> {
  const rows = [...new Uint32Array(await api.bytes("/items/index", { dataset_id: [datasetId] }))].slice(0, MOST);
  const found = new Map<string, number>();
  for (let i = 0; i < rows.length; i += LOOKUP) {
    const { items } = await api.post<{ items: Item[] }>("/items/lookup", { rows: rows.slice(i, i + LOOKUP) });
    for (const item of items) found.set(item.id, item.row);
  }
  return found;
}
