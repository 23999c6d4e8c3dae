/** Sends files from this computer to the app, a few requests at a time, and keeps what became of each. */
import { url } from "../api/client";

export interface Failure {
  name: string;
  message: string;
  hint: string;
}
interface Answer {
  items: { row: number; id: string; name: string; duplicate: boolean; warning?: string }[];
  failed: Failure[];
}
const BATCH_FILES = 16;
const BATCH_BYTES = 24 * 1024 * 1024;
const AT_ONCE = 2;

export class Uploads {
  total = $state(0);
  done = $state(0);
  duplicates = $state(0);
  failures = $state.raw<Failure[]>([]);
  /** Stored, and yet not right. */
  warnings = $state.raw<{ name: string; message: string }[]>([]);
  bytesTotal = $state(0);
  bytesSent = $state(0);
  #queue: { files: File[]; datasetId?: string }[] = [];
  #running = new Set<XMLHttpRequest>();

  get isBusy(): boolean {
    return this.done + this.failures.length < this.total;
  }
  get fraction(): number {
    return this.bytesTotal ? Math.min(1, this.bytesSent / this.bytesTotal) : 0;
  }

  add(files: File[], datasetId?: string): void {
    if (!files.length) return;
    if (!this.isBusy) this.reset();
    this.total += files.length;
    for (const file of files) this.bytesTotal += file.size;
    for (const batch of batches(files)) this.#queue.push({ files: batch, datasetId });
    this.#pump();
  }

  reset(): void {
    this.total = this.done = this.duplicates = this.bytesTotal = this.bytesSent = 0;
    this.failures = [];
    this.warnings = [];
  }

  cancel(): void {
    this.#queue = [];
    for (const request of this.#running) request.abort();
    this.#running.clear();
    this.total = this.done + this.failures.length;
  }

  #pump(): void {
    while (this.#running.size < AT_ONCE) {
      const next = this.#queue.shift();
      if (!next) return;
      this.#send(next.files, next.datasetId);
    }
  }

  #send(files: File[], datasetId?: string): void {
    const form = new FormData();
    if (datasetId) form.append("dataset_id", datasetId);
    for (const file of files) form.append("files", file, file.name);
    const request = new XMLHttpRequest();
    const size = files.reduce((sum, file) => sum + file.size, 0);
    let sent = 0;
    this.#running.add(request);
    request.upload.onprogress = (event) => {
      const now = Math.min(size, event.loaded);
      this.bytesSent += now - sent;
      sent = now;
    };
    request.onloadend = () => {
      if (!this.#running.delete(request)) return;
      this.bytesSent += size - sent;
      this.#finish(request, files);
      this.#pump();
    };
    request.open("POST", url("/items/upload"));
    request.setRequestHeader("accept", "application/json");
    request.send(form);
  }

  #finish(request: XMLHttpRequest, files: File[]): void {
    let body: unknown = null;
    try {
      body = JSON.parse(request.responseText);
    } catch {
      // Not the app's own answer: told below by its status.
    }
    if (request.status >= 200 && request.status < 300 && body) {
      const answer = body as Answer;
      this.done += answer.items.length;
      this.duplicates += answer.items.filter((i) => i.duplicate).length;
      this.failures = [...this.failures, ...answer.failed];
      this.warnings = [...this.warnings, ...answer.items.flatMap(({ name, warning }) => (warning ? [{ name, message: warning }] : []))];
      return;
    }
    const error = (body as { error?: { message: string; hint?: string } } | null)?.error;
    const message = error?.message ?? (request.status ? `The app answered ${request.status}` : "The app does not answer");
    const hint = error?.hint ?? "Check that the app is running, then drop the files again: what has arrived is not stored twice.";
    this.failures = [...this.failures, ...files.map(({ name }) => ({ name, message, hint }))];
  }
}

/** Small files travel together, a big one alone. */
export function batches(files: File[]): File[][] {
  const out: File[][] = [];
  let batch: File[] = [];
  let size = 0;
  for (const file of files) {
    if (batch.length && (batch.length >= BATCH_FILES || size + file.size > BATCH_BYTES)) {
      out.push(batch);
      batch = [];
      size = 0;
    }
    batch.push(file);
    size += file.size;
  }
  if (batch.length) out.push(batch);
  return out;
}

/** Files of a drop, folders opened. */
export async function droppedFiles(data: DataTransfer): Promise<File[]> {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter((e): e is FileSystemEntry => !!e);
  if (!entries.length) return [...data.files];
  const lists = await Promise.all(entries.map(filesOf));
  return lists.flat().filter((file) => !file.name.startsWith("."));
}

async function filesOf(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) return [await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject))];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: FileSystemEntry[] = [];
  // A reader hands out a hundred entries at a time, and none at the end.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesOf))).flat();
}
