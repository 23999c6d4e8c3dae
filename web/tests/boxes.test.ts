import assert from "node:assert/strict";
import { test } from "node:test";
import type { Box } from "../src/lib/api/types.ts";
import { between, handleAt, isTiny, moved, overlap, resized, under, type Edges } from "../src/lib/annotate/geometry.ts";
import { History } from "../src/lib/annotate/history.ts";
import { Journal, over, type Entry, type Place } from "../src/lib/annotate/journal.ts";
import { onDigits, withLabel } from "../src/lib/annotate/labels.ts";

const edges = (x_min: number, y_min: number, x_max: number, y_max: number): Edges => ({ x_min, y_min, x_max, y_max });
const box = (id: string, label = "cat"): Box => ({ id, label, ...edges(0.1, 0.1, 0.3, 0.3), confidence: null });
const near = (a: Edges, b: Edges) => {
  for (const side of ["x_min", "y_min", "x_max", "y_max"] as const) assert.ok(Math.abs(a[side] - b[side]) < 1e-9, `${JSON.stringify(a)} is not ${JSON.stringify(b)}`);
};
const least = { x: 0.01, y: 0.01 };

test("a box drawn from any corner and beyond the picture stays on it", () => {
  near(between({ x: 0.6, y: 0.7 }, { x: -0.2, y: 0.1 }), edges(0, 0.1, 0.6, 0.7));
  near(between({ x: 0.5, y: 0.5 }, { x: 1.4, y: 2 }), edges(0.5, 0.5, 1, 1));
});

test("a moved box stops at the picture's edge and keeps its size", () => {
  near(moved(edges(0.1, 0.1, 0.3, 0.4), -0.5, 0.1), edges(0, 0.2, 0.2, 0.5));
  near(moved(edges(0.1, 0.1, 0.3, 0.4), 5, 5), edges(0.8, 0.7, 1, 1));
});

test("a side pulled past the other turns the box over, and no box ever has no area", () => {
  near(resized(edges(0.4, 0.4, 0.6, 0.6), "e", { x: 0.2, y: 9 }, least), edges(0.2, 0.4, 0.4, 0.6));
  near(resized(edges(0.4, 0.4, 0.6, 0.6), "nw", { x: 0.1, y: 0.2 }, least), edges(0.1, 0.2, 0.6, 0.6));
  for (const handle of ["nw", "n", "ne", "e", "se", "s", "sw", "w"] as const)
    for (const from of [edges(0, 0, 0.02, 0.02), edges(0.98, 0.98, 1, 1), edges(0, 0, 1, 1)])
      for (const x of [-1, 0, 0.02, 0.5, 0.98, 1, 2])
        for (const y of [-1, 0, 0.02, 0.5, 0.98, 1, 2]) {
          const now = resized(from, handle, { x, y }, least);
          assert.ok(now.x_min >= 0 && now.y_min >= 0 && now.x_max <= 1 && now.y_max <= 1, `${handle} to ${x},${y}`);
          assert.ok(now.x_max - now.x_min > 0.0099 && now.y_max - now.y_min > 0.0099, `${handle} to ${x},${y}`);
        }
});

test("the smallest box under the pointer comes first", () => {
  const [outer, inner] = [{ ...edges(0, 0, 1, 1), id: 1 }, { ...edges(0.4, 0.4, 0.6, 0.6), id: 2 }];
  assert.deepEqual(under([outer, inner], { x: 0.5, y: 0.5 }).map((b) => b.id), [2, 1]);
  assert.deepEqual(under([outer, inner], { x: 0.1, y: 0.5 }).map((b) => b.id), [1]);
});

test("handles are on the corners and sides, and the middle of a small box stays free", () => {
  const at = (x: number, y: number) => handleAt(edges(0.2, 0.2, 0.6, 0.6), { x, y }, { x: 0.02, y: 0.02 });
  assert.equal(at(0.2, 0.19), "nw");
  assert.equal(at(0.61, 0.4), "e");
  assert.equal(at(0.4, 0.4), null);
  assert.equal(at(0.7, 0.4), null);
  assert.equal(handleAt(edges(0.5, 0.5, 0.52, 0.52), { x: 0.51, y: 0.51 }, { x: 0.1, y: 0.1 }), null);
});

test("a slip of the hand is no box", () => {
  const shown = { width: 1000, height: 1000 };
  assert.ok(isTiny(edges(0.5, 0.5, 0.501, 0.9), shown));
  assert.ok(!isTiny(edges(0.5, 0.5, 0.51, 0.51), shown));
});

test("overlap is 1 for the same box and 0 for boxes apart", () => {
  assert.equal(overlap(edges(0.1, 0.1, 0.3, 0.3), edges(0.1, 0.1, 0.3, 0.3)), 1);
  assert.equal(overlap(edges(0, 0, 0.1, 0.1), edges(0.5, 0.5, 1, 1)), 0);
});

test("what was undone can be done again until something new is done", () => {
  const history = new History();
  const drawn = { row: 1, itemId: "i", before: null, after: box("a") };
  history.add([drawn]);
  assert.deepEqual(history.undo(), [{ ...drawn, before: drawn.after, after: null }]);
  assert.equal(history.undo(), null);
  assert.deepEqual(history.redo(), [drawn]);
  history.undo();
  history.add([{ ...drawn, row: 2 }]);
  assert.ok(!history.canRedo);
});

test("nudges that follow quickly are one step", () => {
  const history = new History();
  const nudge = (from: string, to: string) => [{ row: 1, itemId: "i", before: { ...box("a"), label: from }, after: { ...box("a"), label: to } }];
  history.add(nudge("0", "1"), "nudge", 1000);
  history.add(nudge("1", "2"), "nudge", 1500);
  history.add(nudge("2", "3"), "nudge", 9000);
  assert.equal(history.undo()![0]!.after!.label, "2");
  assert.equal(history.undo()![0]!.after!.label, "0");
});

class Memory implements Place {
  kept = new Map<string, string>();
  full = false;
  get length() {
    return this.kept.size;
  }
  key = (i: number) => [...this.kept.keys()][i] ?? null;
  getItem = (key: string) => this.kept.get(key) ?? null;
  setItem = (key: string, value: string) => {
    if (this.full) throw new Error("QuotaExceededError");
    this.kept.set(key, value);
  };
  removeItem = (key: string) => void this.kept.delete(key);
}

test("the journal keeps the newest wish for each box and each user's own", () => {
  const place = new Memory();
  const mine = new Journal(place, "me");
  const entry = (stamp: string, label: string): Entry => ({ row: 7, itemId: "i", boxId: "a", box: { ...box("a"), label }, stamp });
  assert.ok(mine.keep(entry("1", "cat")));
  assert.ok(mine.keep(entry("2", "dog")));
  mine.forget(entry("1", "cat")); // the answer to the older wish
  assert.deepEqual(mine.all(), [entry("2", "dog")]);
  assert.deepEqual(new Journal(place, "somebody else").all(), []);
  mine.forget(entry("2", "dog"));
  assert.deepEqual(mine.all(), []);
});

test("a full browser is told, damaged entries are passed over", () => {
  const place = new Memory();
  place.setItem("gleaner.unsaved-box.me.7.x", "{half");
  const journal = new Journal(place, "me");
  place.full = true;
  assert.equal(journal.keep({ row: 7, itemId: "i", boxId: "a", box: null, stamp: "1" }), false);
  assert.deepEqual(journal.all(), []);
});

test("unsaved changes lie over what the app has", () => {
  const shown = over([box("a"), box("b"), box("c")], [{ boxId: "b", box: box("b", "dog") }, { boxId: "c", box: null }, { boxId: "d", box: box("d") }, { boxId: "e", box: null }]);
  assert.deepEqual(shown.map((b) => [b.id, b.label]), [["a", "cat"], ["b", "dog"], ["d", "cat"]]);
});

test("labels keep their keys", () => {
  assert.deepEqual(onDigits(["dog"], ["cat", "dog", "bird"]), ["dog", "cat", "bird"]);
  const nine = Array.from({ length: 9 }, (_, i) => `label${i}`);
  assert.deepEqual(withLabel(nine, "label3"), nine);
  assert.deepEqual(withLabel(nine, "new"), [...nine.slice(0, 8), "new"]);
  assert.deepEqual(withLabel(["cat"], "dog"), ["cat", "dog"]);
});
