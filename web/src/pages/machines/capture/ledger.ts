/** What a machine says about its captures, in the words and numbers of the Capture tab. */
import type { Collector, HourRow, Ledger } from "$lib/api/types";
import { ago, bytes, count, plural } from "../../../lib/format.ts";

export type Parts = { captured: number; synced: number; waiting: number; dropped: number; elsewhere: number };

const total = (numbers: Record<string, number>) => Object.values(numbers).reduce((sum, n) => sum + n, 0);

/** `captured = synced + waiting + dropped + elsewhere`, always; `elsewhere` is 0 unless the machine's own sum is off. */
export function partsOf(c: Pick<Collector, "captured" | "synced" | "waiting" | "dropped">): Parts {
  const dropped = total(c.dropped);
  return { captured: c.captured, synced: c.synced, waiting: c.waiting, dropped, elsewhere: c.captured - c.synced - c.waiting - dropped };
}

// One for each DropReason in src/gleaner/machine/capture/ledger.py.
const REASONS: Record<string, string> = {
  queue_full: "the disk was too slow to take them in time",
  disk_full: "the disk was full",
  no_inodes: "the disk had no room for more files",
  quota: "the user's disk quota was used up",
  read_only: "the disk was read-only",
  io_error: "the disk failed to write",
  too_many_files: "the machine had too many files open",
  no_permission: "the capture folder may not be written",
  removed: "something else deleted the file before it was complete",
  write_failed: "writing failed",
  thinned: "removed evenly in time to make room on a full disk",
  rejected: "the app refused them; they are kept on the machine",
  damaged: "the file was damaged; it is kept on the machine",
};

export type Drop = { reason: string; count: number; words: string };

/** The most frequent first. A reason that a newer machine has is shown by its name. */
export const dropsOf = (dropped: Record<string, number>): Drop[] =>
  Object.entries(dropped)
    .filter(([, n]) => n > 0)
    .sort(([a, m], [b, n]) => n - m || a.localeCompare(b))
    .map(([reason, n]) => ({ reason, count: n, words: REASONS[reason] ?? reason.replaceAll("_", " ") }));

/** No more exact than a rate that changes allows. */
export function roughly(seconds: number): string {
  if (seconds < 10) return "a few seconds";
  if (seconds < 55) return `${Math.ceil(seconds / 10) * 10} s`;
  if (seconds < 3300) return `${Math.max(1, Math.round(seconds / 60))} min`;
  if (seconds < 36 * 3600) return `${Math.max(1, Math.round(seconds / 3600))} h`;
  return plural(Math.round(seconds / 86400), "day");
}

/** What waits is what was captured just now: no end can be foretold, nor does anybody need one. */
const isKeepingUp = (l: Ledger, now: number) => !l.sync_error && l.oldest_unsent !== null && now - Date.parse(l.oldest_unsent) < 60_000;

/** The line on what waits, as parts to be set beside each other. `isLive`: these numbers are of now. A rate of the past promises nothing. */
export function backlogWords(l: Ledger, now: number, isLive: boolean): { waits: string; oldest: string; rate: string; eta: string } {
  if (l.backlog_files === 0) return { waits: l.counting ? "" : "Nothing waits to be synced", oldest: "", rate: "", eta: "" };
  const isSteady = isLive && isKeepingUp(l, now);
  const rate = isLive && !l.sync_error && l.rate && l.rate.files_per_s > 0 ? l.rate : null;
  const perSecond = rate && (rate.files_per_s < 10 ? rate.files_per_s.toFixed(1).replace(/\.0$/, "") : count(Math.round(rate.files_per_s)));
  return {
    waits: `${plural(l.backlog_files, "file waits", "files wait")} to be synced, ${bytes(l.backlog_bytes)}`,
    oldest: l.oldest_unsent && !isSteady ? `oldest from ${ago(l.oldest_unsent, now)}` : "",
    rate: rate ? (perSecond === "0" ? `${bytes(Math.round(rate.bytes_per_s))}/s` : `${perSecond} ${perSecond === "1" ? "file" : "files"}/s, ${bytes(Math.round(rate.bytes_per_s))}/s`) : "",
    eta: isSteady ? "keeping up" : rate && typeof l.eta_s === "number" && Number.isFinite(l.eta_s) ? `done in about ${roughly(l.eta_s)}` : "",
  };
}

export type Tone = "good" | "warn" | "bad";

export function diskWords(disk: NonNullable<Ledger["disk"]>): { room: string; state: string; tone: Tone } {
  const room = `${bytes(disk.free_bytes)} of ${bytes(disk.size_bytes)} free on its disk`;
  if (disk.state === "full") return { room, tone: "bad", state: "The disk is full: new captures are dropped until some are synced or somebody frees space." };
  if (disk.state === "thinning") return { room, tone: "warn", state: "The disk is almost full: stored captures are removed, evenly in time, so that new ones fit. Free space, or bring the connection back." };
  return { room, tone: "good", state: "" };
}

type Problem = { what: string; todo: string; page: "" | "configure" | "connect" };

// By the words of machine/sync and machine/capture/manager.py.
const TODO: [RegExp, string, Problem["page"]][] = [
  [/^sync is held back/, "Captures stay on the machine until that sensor says should_sync: true. Which sensor it is stands in its data manager.", "configure"],
  [/encrypted with/, "These captures are safe and wait on the machine. The others are sent.", "configure"],
  [/^sync is disabled/, "Captures stay on the machine. Switch sync on in its data manager.", "configure"],
  [/^no app is configured/, "Captures stay on the machine. Give it the setup file that the app shows.", "connect"],
  [/refuses this part's secret/, "Make a new setup file and put it onto the machine.", "connect"],
  [/refuses this machine's API key/, "Give it a key with the owner's role on this machine, or the setup file that the app shows.", "connect"],
  [/certificate|web_address|no \/api\/sync/, "Give the machine the setup file that the app shows; it holds the right address and certificate.", "connect"],
  [/proxy/, "Check the proxy settings in the environment that the machine's process runs in.", ""],
  [/cannot be looked up|cannot be reached|has not answered|connection|line/, "Check the machine's network. It tries again by itself, and captures wait on its disk until then.", ""],
];

/** The machine's own words, and what a person can do. Null when sync is well. */
export function syncProblem(error: string): Problem | null {
  if (!error) return null;
  const start = /^\w+:\/\//.test(error) ? error.charAt(0) : error.charAt(0).toUpperCase(); // an address stays as it is
  const what = `${start}${error.slice(1)}${/[.?!]$/.test(error) ? "" : "."}`;
  const [, todo, page] = TODO.find(([known]) => known.test(error)) ?? [null, "It tries again by itself, and captures wait on its disk until then. Its log says more.", "" as const];
  return { what, todo, page };
}

/** Lateness in words when it is worth a person's time: at least 20 ms, and a tenth of the time between two captures. */
export function lateWords(c: Pick<Collector, "late_ms" | "frequency_hz">): string {
  const p99 = c.late_ms?.["p99"] ?? 0;
  if (c.frequency_hz <= 0 || p99 < 20 || p99 < 100 / c.frequency_hz) return "";
  const ms = (x: number) => (x < 1000 ? `${Math.round(x)}\u00a0ms` : `${(x / 1000).toFixed(1)}\u00a0s`);
  return `1 capture in 100 begins more than ${ms(p99)} late (typically ${ms(c.late_ms?.["p50"] ?? 0)})`;
}

/** Captures that were never taken, in words; they are no part of the sum. */
export function untakenWords(c: Pick<Collector, "skipped" | "vetoed">): string[] {
  return [
    ...(c.skipped ? [`${count(c.skipped)} skipped: the driver or the machine was still busy`] : []),
    ...(c.vetoed ? [`${count(c.vetoed)} left out: the driver's own filter did not want them`] : []),
  ];
}

export const frequency = (hz: number) => (hz <= 0 ? "" : hz >= 1 ? `${+hz.toFixed(2)} per second` : `every ${+(1 / hz).toFixed(1)}\u00a0s`);

const HOUR_MS = 3_600_000;
export type Hour = Parts & { start: number; drops: Drop[] };

/** One bar for each of the last hours, the newest last; hours without captures are empty bars. */
export function hoursOf(rows: readonly HourRow[], component: string, method: string, now: number, hours = 24): Hour[] {
  const last = Math.floor(now / HOUR_MS) * HOUR_MS;
  const mine = new Map(rows.filter((r) => r.component === component && r.method === method).map((r) => [Math.floor(Date.parse(r.hour) / HOUR_MS) * HOUR_MS, r]));
  return Array.from({ length: hours }, (_, i) => {
    const start = last - (hours - 1 - i) * HOUR_MS;
    const row = mine.get(start) ?? { captured: 0, synced: 0, waiting: 0, dropped: {} };
    return { start, ...partsOf(row), drops: dropsOf(row.dropped) };
  });
}

/** Checks what the machine answered: an older one may answer a command that it doesn't know with anything. */
export function readHours(answer: unknown): HourRow[] | null {
  const rows = (answer as { hours?: unknown } | null)?.hours;
  const isRow = (r: unknown) => typeof r === "object" && r !== null && "hour" in r && "captured" in r && "dropped" in r;
  return Array.isArray(rows) && rows.every(isRow) ? (rows as HourRow[]) : null;
}
