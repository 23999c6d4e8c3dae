import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync } from "node:fs";
import type { Ledger } from "../src/lib/api/types.ts";
import { backlogWords, diskWords, dropsOf, frequency, hoursOf, lateWords, partsOf, readHours, roughly, syncProblem, untakenWords } from "../src/pages/machines/capture/ledger.ts";

const NOW = Date.parse("2026-03-01T12:30:00Z");
const ledger = (over: Partial<Ledger>): Ledger => ({ collectors: [], backlog_files: 0, backlog_bytes: 0, oldest_unsent: null, sync_error: "", counting: false, ...over });

test("the parts of a collector add up to what it captured, also when the machine's own sum is off", () => {
  const sum = (p: ReturnType<typeof partsOf>) => p.synced + p.waiting + p.dropped + p.elsewhere;
  const good = partsOf({ captured: 17, synced: 10, waiting: 4, dropped: { disk_full: 2, queue_full: 1 } });
  assert.deepEqual(good, { captured: 17, synced: 10, waiting: 4, dropped: 3, elsewhere: 0 });
  const off = partsOf({ captured: 17, synced: 10, waiting: 4, dropped: {} });
  assert.equal(off.elsewhere, 3);
  assert.equal(sum(off), off.captured);
});

test("drops are named in words, the most frequent first; an unknown reason by its name", () => {
  const drops = dropsOf({ quota: 1, thinned: 9, new_reason: 3, disk_full: 0 });
  assert.deepEqual(drops.map((d) => [d.count, d.reason]), [[9, "thinned"], [3, "new_reason"], [1, "quota"]]);
  assert.equal(drops[1]!.words, "new reason");
});

test("every reason that the machine can give has words", () => {
  const source = readFileSync(new URL("../../src/gleaner/machine/capture/ledger.py", import.meta.url), "utf8");
  const reasons = [...source.slice(source.indexOf("class DropReason"), source.indexOf("@dataclass")).matchAll(/^ {4}[A-Z_]+ = "([a-z_]+)"/gm)].map((m) => m[1]!);
  assert.ok(reasons.length >= 13, String(reasons));
  for (const reason of reasons) assert.notEqual(dropsOf({ [reason]: 1 })[0]!.words, reason.replaceAll("_", " "), reason);
});

test("a duration is told no more exactly than a rate allows", () => {
  assert.deepEqual([3, 31, 58, 185, 3500, 7000, 86400 * 3].map(roughly), ["a few seconds", "40 s", "1 min", "3 min", "1 h", "2 h", "3 days"]);
});

test("the backlog is told with its oldest, its rate and when it will be through", () => {
  const l = ledger({ backlog_files: 1204, backlog_bytes: 38e6, oldest_unsent: "2026-03-01T12:18:00Z", rate: { files_per_s: 6.5, bytes_per_s: 2e5 }, eta_s: 185 });
  assert.deepEqual(backlogWords(l, NOW, true), { waits: "1,204 files wait to be synced, 38 MB", oldest: "oldest from 12 min ago", rate: "6.5 files/s, 200 kB/s", eta: "done in about 3 min" });
  const offline = backlogWords(l, NOW, false);
  assert.equal(offline.rate + offline.eta, "", "an old rate promises nothing");
  const steady = { ...l, oldest_unsent: "2026-03-01T12:29:57Z", eta_s: 58978 };
  assert.equal(backlogWords(steady, NOW, true).eta, "keeping up");
  assert.equal(backlogWords(steady, NOW, true).oldest, "");
  const cut = backlogWords({ ...l, sync_error: "x cannot be reached" }, NOW, true);
  assert.equal(cut.rate + cut.eta, "");
  assert.equal(backlogWords(ledger({}), NOW, true).waits, "Nothing waits to be synced");
  assert.equal(backlogWords(ledger({ counting: true }), NOW, true).waits, "", "not known while it counts");
  assert.equal(backlogWords(ledger({ backlog_files: 1, rate: { files_per_s: 0, bytes_per_s: 0 }, eta_s: null }), NOW, true).rate, "");
});

test("a disk that runs full says what it does", () => {
  const disk = { size_bytes: 64e9, free_bytes: 1e9 };
  assert.deepEqual(diskWords({ ...disk, state: "ok" }), { room: "1.0 GB of 64 GB free on its disk", state: "", tone: "good" });
  assert.equal(diskWords({ ...disk, state: "thinning" }).tone, "warn");
  assert.match(diskWords({ ...disk, state: "full" }).state, /dropped/);
});

test("a sync error says what to do and where", () => {
  assert.equal(syncProblem(""), null);
  const held = syncProblem("sync is held back: the sensor 'gate' cannot be read: connection refused")!;
  assert.equal(held.page, "configure");
  assert.match(held.todo, /should_sync/);
  assert.match(syncProblem("captures wait on this machine: the capture file is encrypted with another key (id 12): add that key")!.todo, /safe/);
  assert.equal(syncProblem("sync is disabled in the data manager's configuration")!.page, "configure");
  assert.equal(syncProblem("the app at https://x refuses this part's secret (401): make a new secret")!.page, "connect");
  const unreachable = syncProblem("https://x cannot be reached: no answer within 10 s")!;
  assert.equal(unreachable.what, "https://x cannot be reached: no answer within 10 s.");
  assert.match(unreachable.todo, /network/);
  assert.match(syncProblem("something new")!.todo, /log/);
});

test("lateness is told only when it matters", () => {
  assert.equal(lateWords({ late_ms: null, frequency_hz: 1 }), "");
  assert.equal(lateWords({ late_ms: { p50: 1, p99: 15 }, frequency_hz: 30 }), "");
  assert.equal(lateWords({ late_ms: { p50: 1, p99: 90 }, frequency_hz: 1 }), "", "a tenth of a second within ten is fine");
  assert.match(lateWords({ late_ms: { p50: 40, p99: 1500 }, frequency_hz: 1 }), /1\.5\u00a0s late \(typically 40\u00a0ms\)/);
});

test("what was never captured is told apart from what was dropped", () => {
  assert.deepEqual(untakenWords({ skipped: 0, vetoed: 0 }), []);
  assert.equal(untakenWords({ skipped: 1200, vetoed: 3 }).length, 2);
  assert.deepEqual([0, 0.1, 1, 2.5].map(frequency), ["", "every 10\u00a0s", "1 per second", "2.5 per second"]);
});

test("hours without captures are empty bars, and others' hours are left out", () => {
  const row = { component: "cam", method: "ReadImage", captured: 5, synced: 2, waiting: 1, dropped: { disk_full: 2 } };
  const rows = [{ ...row, hour: "2026-03-01T12:00:00Z" }, { ...row, hour: "2026-03-01T10:00:00+00:00" }, { ...row, component: "other", hour: "2026-03-01T11:00:00Z" }, { ...row, hour: "2026-02-20T11:00:00Z" }];
  const hours = hoursOf(rows, "cam", "ReadImage", NOW);
  assert.equal(hours.length, 24);
  assert.deepEqual(hours.slice(-3).map((h) => [h.captured, h.dropped]), [[5, 2], [0, 0], [5, 2]]);
  assert.equal(hours.reduce((sum, h) => sum + h.captured, 0), 10);
});

test("an answer without hours hides them", () => {
  assert.equal(readHours({}), null);
  assert.equal(readHours(null), null);
  assert.equal(readHours({ hours: [1] }), null);
  assert.deepEqual(readHours({ hours: [] }), []);
});
