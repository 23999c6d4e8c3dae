import assert from "node:assert/strict";
import { test } from "node:test";
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
