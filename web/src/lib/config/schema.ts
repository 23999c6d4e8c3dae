/** JSON Schemas (as pydantic writes them) read the way a form needs them. */
import type { JsonSchema } from "../api/types";

export type Shape =
  | { kind: "boolean" | "json" }
  | { kind: "text"; format?: string; pattern?: string; maxLength?: number }
  | { kind: "number"; integer: boolean; min?: number; max?: number }
  | { kind: "choice"; options: (string | number)[] }
  | { kind: "object"; properties: [string, JsonSchema][]; required: string[] }
  | { kind: "map"; values: JsonSchema }
  | { kind: "words" }
  | { kind: "list"; items: JsonSchema; fixed?: number }
  | { kind: "variant"; key: string; options: { name: string; title: string; schema: JsonSchema }[] };

/** Follows `$ref` and one-element `allOf`, and unwraps `X | null`; the outer title, description and default stay. */
export function resolve(schema: JsonSchema, root: JsonSchema): JsonSchema {
  const { $ref, allOf, anyOf, ...own } = schema;
  if ($ref) {
    const target = root.$defs?.[$ref.replace("#/$defs/", "")];
    return target ? { ...resolve(target, root), ...own } : own;
  }
  if (allOf?.length === 1) return { ...resolve(allOf[0]!, root), ...own };
  const real = anyOf?.filter((s) => s.type !== "null");
  if (real?.length === 1) return { ...resolve(real[0]!, root), ...own };
  return schema;
}

function numberShape(s: JsonSchema, integer: boolean): Shape {
  return { kind: "number", integer, min: s.minimum ?? s.exclusiveMinimum, max: s.maximum ?? s.exclusiveMaximum };
}

function arrayShape(s: JsonSchema, root: JsonSchema): Shape {
  if (s.prefixItems?.length) return { kind: "list", items: s.prefixItems[0]!, fixed: s.prefixItems.length };
  const items = s.items ?? {};
  const resolved = resolve(items, root);
  if (resolved.type === "string" && !resolved.enum) return { kind: "words" };
  return { kind: "list", items, fixed: s.minItems !== undefined && s.minItems === s.maxItems ? s.minItems : undefined };
}

function variantShape(s: JsonSchema, root: JsonSchema): Shape | null {
  const members = (s.oneOf ?? s.anyOf ?? []).map((m) => resolve(m, root));
  if (members.length < 2) return null;
  const key = Object.keys(members[0]?.properties ?? {}).find((k) => members.every((m) => m.properties?.[k]?.const !== undefined));
  if (!key) return null;
  return { kind: "variant", key, options: members.map((schema) => ({ name: String(schema.properties![key]!.const), title: schema.title ?? "", schema })) };
}

/** `schema` must be resolved. */
export function shapeOf(s: JsonSchema, root: JsonSchema): Shape {
  if (s.enum) return { kind: "choice", options: s.enum.filter((v): v is string | number => typeof v === "string" || typeof v === "number") };
  const variant = variantShape(s, root);
  if (variant) return variant;
  switch (s.type) {
    case "boolean":
      return { kind: "boolean" };
    case "integer":
      return numberShape(s, true);
    case "number":
      return numberShape(s, false);
    case "string":
      return { kind: "text", format: s.format, pattern: s.pattern, maxLength: s.maxLength };
    case "array":
      return arrayShape(s, root);
    case "object":
      if (s.properties && Object.keys(s.properties).length) return { kind: "object", properties: Object.entries(s.properties), required: s.required ?? [] };
      if (s.additionalProperties && s.additionalProperties !== true) {
        const values = resolve(s.additionalProperties, root);
        if (!["json", "variant", "object"].includes(shapeOf(values, root).kind)) return { kind: "map", values: s.additionalProperties };
      }
      return { kind: "json" };
    default:
      return { kind: "json" };
  }
}

export function titleOf(name: string, schema: JsonSchema): string {
  return schema.title ?? name.replaceAll("_", " ").replace(/^\w/, (c) => c.toUpperCase());
}

/** What a default looks like in an empty field. */
export function shownDefault(value: unknown): string {
  if (value === undefined || value === null || value === "") return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A value to begin with: defaults are left out, the machine knows them; required choices get their first option. */
export function starter(schema: JsonSchema, root: JsonSchema): unknown {
  const resolved = resolve(schema, root);
  if (resolved.const !== undefined) return resolved.const;
  const shape = shapeOf(resolved, root);
  switch (shape.kind) {
    case "object":
      return Object.fromEntries(
        shape.properties.filter(([n]) => shape.required.includes(n)).map(([n, s]) => [n, starter(s, root)]),
      );
    case "variant":
      return { [shape.key]: shape.options[0]!.name, ...(starter(shape.options[0]!.schema, root) as object) };
    case "choice":
      return resolved.default ?? shape.options[0];
    case "list":
      return shape.fixed ? Array.from({ length: shape.fixed }, () => 0) : [];
    case "words":
      return [];
    case "boolean":
      return resolved.default ?? false;
    case "number":
      return resolved.default ?? shape.min ?? 0;
    case "map":
    case "json":
      return resolved.default ?? (resolved.type === "array" ? [] : {});
    default:
      return resolved.default ?? "";
  }
}

/** Which kind of resource a text names, by the field's name; used for suggestions only. */
export function namesResource(field: string): string | null {
  if (/^(camera|camera_name|source|default_camera)$/.test(field)) return "camera";
  if (/^(mlmodel_name|ml_model)$/.test(field)) return "mlmodel";
  if (/^(classifier_name|detector_name|vision_name|vision_service)s?$/.test(field)) return "vision";
  if (/^(base|base_name)$/.test(field)) return "base";
  if (/sensor(_name)?$/.test(field) || field === "selective_syncer_name") return "sensor";
  return null;
}
