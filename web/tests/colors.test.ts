import assert from "node:assert/strict";
import { test } from "node:test";
import { labelColor, NONE_OF_THESE } from "../src/lib/gallery/colors.ts";

/** The signs of the simulated arena. */
const SIGNS = ["red_star", "blue_star", "black_triangle", "green_square", "yellow_circle", "blue_circle", "red_pentagon", "orange_triangle", "green_hexagon"];
const hue = (label: string) => Number(/([\d.]+)\)$/.exec(labelColor(label))![1]);

test("labels seen together have different colours", () => {
  assert.equal(new Set(SIGNS.map(labelColor)).size, SIGNS.length);
});

test("a label's own colour word decides its hue", () => {
  for (const [label, at] of [["red_star", 25], ["blue_circle", 255], ["Green square", 145], ["yellow", 100]] as const) {
    const away = Math.abs(hue(label) - at);
    assert.ok(Math.min(away, 360 - away) <= 16, `${label} has hue ${hue(label)}`);
  }
  assert.match(labelColor("black_triangle"), /^color-mix/);
  assert.match(labelColor("redwood"), /^oklch/);
});

test("many labels without a colour word use many colours", () => {
  const used = new Set(Array.from({ length: 200 }, (_, i) => labelColor(`part ${i}`)));
  assert.ok(used.size >= 20, `${used.size} colours`);
});

test("no colour for nothing", () => {
  assert.equal(labelColor(NONE_OF_THESE), "var(--muted)");
});
