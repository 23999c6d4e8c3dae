/** Saves pictures to this computer: one as it is, several as a zip with their tags beside them. */
import { request } from "../api/client";
import type { Item } from "../api/types";
import { Zip } from "./zip";

/** A zip in the browser's memory stays well below what a tab may hold. */
export const MAX_FILES = 20_000;
const MAX_BYTES = 3.5e9;

export function save(blob: Blob, name: string): void {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

export function fileName(item: Item): string {
  const given = item.file_name.slice(item.file_name.lastIndexOf("/") + 1);
  const stem = given || `${item.component_name || item.kind}_${item.captured_at.replace(/[:.]/g, "-")}`;
  return item.file_ext && !stem.endsWith(item.file_ext) ? stem + item.file_ext : stem;
}

async function content(item: Item): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await (await request("GET", `/items/${item.row}/content`)).arrayBuffer());
}

export async function downloadItems(items: Item[], onprogress: (done: number) => void): Promise<void> {
  const [only] = items;
  if (only && items.length === 1) return save(new Blob([await content(only)], { type: only.mime_type }), fileName(only));
  const bytes = items.reduce((sum, item) => sum + item.size_bytes, 0);
  if (bytes > MAX_BYTES || items.length > MAX_FILES) throw new Error("This is too much for one download in the browser. Select less of it.");
  const zip = new Zip();
  const lines: string[] = [];
  let done = 0;
  for (const item of items) {
    const name = fileName(item);
    zip.add(`data/${name}`, await content(item), new Date(item.captured_at));
    const { id, captured_at, component_name, method, tags, boxes, classifications } = item;
    lines.push(JSON.stringify({ file: name, id, captured_at, machine: item.machine?.name, component_name, method, tags, boxes, classifications }));
    onprogress(++done);
  }
  zip.add("items.jsonl", new TextEncoder().encode(`${lines.join("\n")}\n`), new Date());
  save(zip.finish(), `gleaner-${new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-")}.zip`);
}
