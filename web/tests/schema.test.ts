import assert from "node:assert/strict";
import { test } from "node:test";
import type { JsonSchema } from "../src/lib/api/types.ts";
import { namesResource, resolve, shapeOf, starter } from "../src/lib/config/schema.ts";

const root: JsonSchema = {
  $defs: {
    Crop: { type: "object", title: "Crop", properties: { type: { const: "crop" }, width: { type: "integer", minimum: 1 } }, required: ["type", "width"] },
    Rotate: { type: "object", title: "Rotate", properties: { type: { const: "rotate" }, angle: { type: "number", default: 90 } }, required: ["type"] },
    Step: { oneOf: [{ $ref: "#/$defs/Crop" }, { $ref: "#/$defs/Rotate" }] },
  },
};
const kind = (s: JsonSchema) => shapeOf(resolve(s, root), root).kind;

test("each schema gets the control that fits it", () => {
  const table: [JsonSchema, string][] = [
    [{ type: "boolean" }, "boolean"],
    [{ type: "integer", minimum: 0 }, "number"],
    [{ anyOf: [{ type: "number" }, { type: "null" }] }, "number"],
    [{ type: "string", enum: ["a", "b"] }, "choice"],
    [{ type: "array", items: { type: "string" } }, "words"],
    [{ type: "array", items: { type: "number" }, minItems: 3, maxItems: 3 }, "list"],
    [{ type: "array", items: { $ref: "#/$defs/Step" } }, "list"],
    [{ $ref: "#/$defs/Step" }, "variant"],
    [{ $ref: "#/$defs/Crop" }, "object"],
    [{ type: "object", additionalProperties: { type: "number" } }, "map"],
    [{ type: "object", additionalProperties: true }, "json"],
    [{ anyOf: [{ type: "number" }, { type: "string" }] }, "json"],
    [{}, "json"],
  ];
  for (const [schema, expected] of table) assert.equal(kind(schema), expected, JSON.stringify(schema));
});

test("an outer title and default win over the referenced ones", () => {
  const found = resolve({ $ref: "#/$defs/Rotate", title: "Turn", default: {} }, root);
  assert.equal(found.title, "Turn");
  assert.equal(found.type, "object");
});

test("a new value holds only what is required, and the first variant", () => {
  assert.deepEqual(starter({ $ref: "#/$defs/Step" }, root), { type: "crop", width: 1 });
  assert.deepEqual(starter({ type: "object", properties: { a: { type: "string" }, b: { type: "integer", default: 4 } }, required: ["a"] }, root), { a: "" });
  assert.deepEqual(starter({ type: "array", items: { type: "number" }, minItems: 2, maxItems: 2 }, root), [0, 0]);
});

test("fields that name a resource are known by their name", () => {
  assert.equal(namesResource("source"), "camera");
  assert.equal(namesResource("mlmodel_name"), "mlmodel");
  assert.equal(namesResource("label"), null);
});
