/** Rows of an answer as people read them, and as files. */
import type { Line } from "$lib/gallery/LineChart.svelte";
import { full } from "$lib/format";

export type Row = Record<string, unknown>;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const COLORS = ["--c1", "--c2", "--c3", "--c4"];

export const isTime = (value: unknown): value is string => typeof value === "string" && TIME.test(value);

/** What a cell shows. */
export function shown(value: unknown): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString() : String(Number(value.toPrecision(7)));
  if (isTime(value)) return full(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** The whole value, for a tooltip and for files. */
export const exact = (value: unknown): string => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));

export function toCsv(columns: string[], rows: Row[]): string {
  const cell = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [columns.map(cell).join(","), ...rows.map((row) => columns.map((name) => cell(exact(row[name]))).join(","))].join("\r\n") + "\r\n";
}

export const toJsonLines = (rows: Row[]): string => rows.map((row) => JSON.stringify(row)).join("\n") + "\n";

/** Numbers over time, if the rows have them: the first column of times, and up to four of numbers. */
export function chartOf(columns: string[], rows: Row[]): { x: number[]; lines: Line[] } | null {
  const time = columns.find((name) => rows.length > 1 && rows.every((row) => isTime(row[name])));
  const numbers = columns.filter((name) => rows.some((row) => typeof row[name] === "number") && rows.every((row) => typeof row[name] === "number" || row[name] == null));
  if (!time || !numbers.length) return null;
  const ordered = rows.map((row) => ({ at: Date.parse(row[time] as string) / 1000, row })).sort((a, b) => a.at - b.at);
  if (ordered[0]!.at === ordered.at(-1)!.at) return null;
  const lines = numbers.slice(0, COLORS.length).map((name, i) => ({ label: name, color: COLORS[i]!, values: ordered.map(({ row }) => (row[name] as number | null) ?? null) }));
  return { x: ordered.map(({ at }) => at), lines };
}

export function download(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
