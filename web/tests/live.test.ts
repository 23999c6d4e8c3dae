import assert from "node:assert/strict";
import { test } from "node:test";
import type { MlModel } from "../src/lib/api/types.ts";
import { positionOf } from "../src/lib/editor/positions.ts";
import { parseFrame } from "../src/lib/live/frame.ts";
import { KEYS, power } from "../src/lib/live/power.ts";
import { suggestedThreshold } from "../src/lib/live/suggested.ts";
import { compile } from "../src/lib/paths.ts";

function message(header: object, picture: number[]): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const all = new Uint8Array(4 + text.length + picture.length);
  new DataView(all.buffer).setUint32(0, text.length, true);
  all.set(text, 4);
  all.set(picture, 4 + text.length);
  return all.buffer;
}

test("a live frame is taken apart into header and picture", () => {
  const { header, picture } = parseFrame(message({ seq: 7, label: "ä" }, [255, 216, 1]));
  assert.equal(header.seq, 7);
  assert.deepEqual([...picture], [255, 216, 1]);
});

test("a cut live frame is refused in words", () => {
  assert.throws(() => parseFrame(new ArrayBuffer(2)), /at least 4 bytes, got 2/);
  assert.throws(() => parseFrame(message({ seq: 1 }, []).slice(0, 8)), /only 4 follow/);
});

test("held keys become power; opposite keys cancel; left is positive", () => {
  assert.deepEqual(power(new Set(["forward"]), 0.5), { linear: 0.5, angular: 0 });
  assert.deepEqual(power(new Set(["forward", "left"]), 1), { linear: 1, angular: 1 });
  assert.deepEqual(power(new Set(["back", "right"]), 0.5), { linear: -0.5, angular: -0.5 });
  assert.deepEqual(power(new Set(["forward", "back"]), 1), { linear: 0, angular: 0 });
  assert.equal(KEYS.arrowleft, KEYS.a);
});

test("the suggested threshold is that of the deployed version, on this part and service only", () => {
  const version = (v: string, t: number) => ({ version: v, suggested_threshold: t });
  const model = { versions: [version("2", 0.7), version("1", 0.6)], deployments: [{ part: { id: "p" }, vision: "eye", version: "1" }] } as unknown as MlModel;
  assert.equal(suggestedThreshold([model], "p", "eye"), 0.6);
  assert.equal(suggestedThreshold([model], "p", "other"), null);
  assert.equal(suggestedThreshold([model], "q", "eye"), null);
});

test("a problem's path is found in the text, or its nearest parent", () => {
  const text = JSON.stringify({ components: [{ name: "a", "x,]}": "\\\"}" }, { name: "b", attributes: { path: "", list: [1, [2, 3], 4] } }], services: [] }, null, 2);
  const at = (path: string) => text.slice(...positionOf(text, path));
  assert.equal(at("components[1].attributes.path"), '"path"');
  assert.equal(at("components[1].attributes.missing"), '"attributes"');
  assert.equal(at("components[1].attributes.list[2]"), "4");
  assert.equal(at("services"), '"services"');
  assert.equal(at("components[9]"), '"components"');
  assert.deepEqual(positionOf("", "a.b"), [0, 0]);
});

test("page addresses match with their params, and only with allowed words", () => {
  const match = compile("/machines/:id/:tab(control|logs)");
  assert.deepEqual(match("/machines/a%20b/logs"), { id: "a b", tab: "logs" });
  assert.equal(match("/machines/x/other"), null);
  assert.deepEqual(compile("/data")("/data/"), {});
  assert.deepEqual(compile("/models/:name")("/models/50%"), { name: "50%" });
});
