import assert from "node:assert/strict";
import { test } from "node:test";
import { keysOf } from "../src/pages/query/keys.ts";
import { placeOf } from "../src/pages/query/place.ts";

const shown = (message: string, text: string) => {
  const place = placeOf(message, text);
  return place && text.slice(...place);
};

test("an error's line and column are found in the text", () => {
  const text = "SELECT a,\n  FROM\nreadings WHERE x == 1";
  assert.equal(shown('syntax error at or near "WHERE" (line 3, column 10)', text), "WHERE");
  assert.deepEqual(placeOf("syntax error at end of input (line 3, column 22)", text), [text.length - 1, text.length]);
  assert.equal(shown("unterminated string literal (line 1, column 8)", "SELECT 'abc"), "'");
});

test("a name that is not known is found where it is written", () => {
  assert.equal(shown('Binder Error: Referenced column "foo" not found in FROM clause! Candidate bindings: "bar"', "SELECT bar, FOO FROM t"), "FOO");
  assert.equal(placeOf("Other queries are still running", "SELECT 1"), null);
});

test("a reading's values are named as SQL names them", () => {
  const latest = { celsius: 21.5, ok: true, "my key": "a", where: { x: 1, tags: [1] }, none: null };
  assert.deepEqual(
    keysOf(latest, "Readings").map((one) => [one.name, one.kind]),
    [
      ["data.readings.celsius", "number"],
      ["data.readings.ok", "true or false"],
      ['data.readings."my key"', "text"],
      ["data.readings.where.x", "number"],
      ["data.readings.where.tags", "list"],
      ["data.readings.none", "nothing"],
    ],
  );
  assert.deepEqual(keysOf({ angle: 3 }, "Position"), [{ name: "data.angle", short: "angle", kind: "number" }]);
});
