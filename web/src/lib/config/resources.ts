/** Reading and naming what a machine configuration holds, in old and new spellings. */
import type { CaptureMethod, CatalogModel, MachineConfig, ResourceConfig, RetentionPolicy } from "../api/types";

export type Kind = "components" | "services";
export const KINDS: Kind[] = ["components", "services"];
export const NAME = /^[a-zA-Z0-9][-\w]*$/;

export function triplet(model: string | undefined): string {
  return !model ? "rdk:builtin:builtin" : model.includes(":") ? model : `rdk:builtin:${model}`;
}

/** `api`, or the older `namespace` + `type`. */
export function apiOf(resource: ResourceConfig, kind: Kind): string {
  if (resource.api) return resource.api;
  return `${String(resource.namespace ?? "rdk")}:${kind === "components" ? "component" : "service"}:${String(resource.type ?? "generic")}`;
}

export function modelOf(resource: ResourceConfig, kind: Kind, catalog: readonly CatalogModel[]): CatalogModel | undefined {
  const api = apiOf(resource, kind);
  const model = triplet(resource.model);
  return catalog.find((m) => m.api === api && (m.model === model || m.aliases?.some((a) => triplet(a) === model)));
}

type Capture = CatalogModel["capture"];
const named = (field: string, title: string) => ({ type: "object", properties: { [field]: { type: "string", title } }, required: [field] });
const plainRows = (...methods: string[]): Capture => methods.map((method) => ({ method, title: "", default_hz: 1, params: null }));
/** APIs that no built-in model has. Source of names: Viam's data-capture documentation. */
const OTHER_CAPTURE: Record<string, Capture> = {
  "rdk:component:movement_sensor": plainRows("Readings", "Position", "LinearVelocity", "AngularVelocity", "LinearAcceleration", "CompassHeading", "Orientation"),
  "rdk:component:power_sensor": plainRows("Readings", "Voltage", "Current", "Power"),
  "rdk:component:arm": plainRows("EndPosition", "JointPositions"),
  "rdk:component:gantry": plainRows("Position", "Lengths"),
  "rdk:component:motor": plainRows("Position", "IsPowered"),
  "rdk:component:servo": plainRows("Position"),
  "rdk:component:encoder": plainRows("TicksCount"),
  "rdk:component:board": [
    { method: "Analogs", title: "An analog reader", default_hz: 1, params: named("reader_name", "Reader") },
    { method: "Gpios", title: "A pin", default_hz: 1, params: named("pin_name", "Pin") },
  ],
};

/** What can be captured of a resource whose model comes from a module: what its API has. */
export function captureOf(api: string, catalog: readonly CatalogModel[]): Capture {
  const known = catalog.filter((m) => m.api === api).flatMap((m) => m.capture);
  return known.length ? known.filter((c, i) => known.findIndex((o) => o.method === c.method) === i) : (OTHER_CAPTURE[api] ?? []);
}

const isDataManager = (type: string) => type.split(":").at(-1) === "data_manager";
export const dataManager = (config: MachineConfig) => config.services?.find((s) => isDataManager(apiOf(s, "services")));

/** The resource's capture rows, or an empty list. */
export function captureMethods(resource: ResourceConfig): CaptureMethod[] {
  return resource.service_configs?.find((s) => isDataManager(s.type))?.attributes?.capture_methods ?? [];
}

/** Puts capture rows where Viam keeps them; the entry disappears with its last row. */
export function setCaptureMethods(resource: ResourceConfig, methods: CaptureMethod[]) {
  const configs = (resource.service_configs ??= []);
  const entry = configs.find((s) => isDataManager(s.type));
  if (entry) (entry.attributes ??= {}).capture_methods = methods;
  else configs.push({ type: "data_manager", attributes: { capture_methods: methods } });
  const empty = (s: (typeof configs)[number]) => isDataManager(s.type) && !s.attributes?.capture_methods?.length && Object.keys(s.attributes ?? {}).length <= 1;
  resource.service_configs = configs.filter((s) => !empty(s));
  if (!resource.service_configs.length) delete resource.service_configs;
}

export function retentionPolicy(resource: ResourceConfig): RetentionPolicy | undefined {
  return resource.service_configs?.find((s) => isDataManager(s.type))?.attributes?.retention_policy;
}

/** Of a resource that captures something: the policy stands beside its capture rows. */
export function setRetentionPolicy(resource: ResourceConfig, policy: RetentionPolicy | undefined) {
  const attributes = resource.service_configs?.find((s) => isDataManager(s.type))?.attributes;
  if (!attributes) return;
  if (policy) attributes.retention_policy = policy;
  else delete attributes.retention_policy;
}

export function allNames(config: MachineConfig): Set<string> {
  return new Set(KINDS.flatMap((k) => (config[k] ?? []).map((r) => r.name)));
}

const FIRST_NAMES: Record<string, string> = { camera: "cam", data_manager: "data-manager", mlmodel: "model", vision: "vision" };
/** `cam`, then `cam-2`, … */
export function freeName(config: MachineConfig, api: string): string {
  const kind = api.split(":").at(-1) ?? "thing";
  const stem = FIRST_NAMES[kind] ?? kind.replaceAll("_", "-");
  const taken = allNames(config);
  if (!taken.has(stem)) return stem;
  for (let n = 2; ; n++) if (!taken.has(`${stem}-${n}`)) return `${stem}-${n}`;
}

/** What is wrong with a name, or "". */
export function nameProblem(name: string, config: MachineConfig, before = ""): string {
  if (!name) return "A name is needed";
  if (!NAME.test(name)) return "Letters, digits, - and _ only, starting with a letter or a digit";
  if (name.length > 60) return "At most 60 characters";
  return name !== before && allNames(config).has(name) ? "Another resource has this name" : "";
}

/** Renames a resource and every plain mention of it in other resources' attributes and dependencies. */
export function rename(config: MachineConfig, from: string, to: string) {
  const renamed = (value: unknown, key: string): unknown => {
    if (value === from && /(_name|^source|^camera|^base|^name)s?$/.test(key)) return to;
    if (Array.isArray(value)) return value.map((v) => renamed(v, key));
    if (value !== null && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, renamed(v, k)]));
    return value;
  };
  for (const kind of KINDS)
    for (const r of config[kind] ?? []) {
      if (r.name === from) r.name = to;
      if (r.depends_on) r.depends_on = r.depends_on.map((d) => (d === from ? to : d));
      if (r.attributes) r.attributes = renamed(r.attributes, "") as Record<string, unknown>;
      for (const method of captureMethods(r)) if (method.additional_params) method.additional_params = renamed(method.additional_params, "") as Record<string, unknown>;
    }
}
