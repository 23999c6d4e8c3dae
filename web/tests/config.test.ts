import assert from "node:assert/strict";
import { test } from "node:test";
import type { CatalogModel, MachineConfig, ResourceConfig } from "../src/lib/api/types.ts";
import { changes, merge, same } from "../src/lib/config/merge.ts";
import { captureMethods, captureOf, freeName, modelOf, nameProblem, rename, retentionPolicy, setCaptureMethods, setRetentionPolicy } from "../src/lib/config/resources.ts";

const camera = (name: string, attributes: Record<string, unknown> = {}): ResourceConfig => ({ name, api: "rdk:component:camera", model: "rdk:builtin:webcam", attributes });

test("equality does not depend on the order of keys or on undefined", () => {
  assert.ok(same({ a: 1, b: [{ c: 2, d: 3 }] }, { b: [{ d: 3, c: 2 }], a: 1, e: undefined }));
  assert.ok(!same({ a: [1, 2] }, { a: [2, 1] }));
});

test("changes name what was added, changed and removed", () => {
  const from = { components: [camera("a"), camera("b")], packages: [] };
  const to = { components: [camera("a", { fps: 5 }), camera("c")], packages: [{ name: "m", package: "o/m" }] };
  assert.deepEqual(changes(from, to), [
    { what: "a", how: "changed" },
    { what: "c", how: "added" },
    { what: "b", how: "removed" },
    { what: "packages", how: "changed" },
  ]);
});

test("my changes go on top of theirs, resource by resource", () => {
  const base: MachineConfig = { components: [camera("a"), camera("b"), camera("gone")] };
  const mine: MachineConfig = { components: [camera("a", { fps: 1 }), camera("b"), camera("new")] };
  const theirs: MachineConfig = { components: [camera("a"), camera("b", { fps: 9 }), camera("gone"), camera("theirs")] };
  const { config, both } = merge(base, mine, theirs);
  assert.deepEqual(config.components, [camera("a", { fps: 1 }), camera("b", { fps: 9 }), camera("theirs"), camera("new")]);
  assert.deepEqual(both, []);
});

test("where both changed a resource mine is kept and named; what they changed is never deleted", () => {
  const base: MachineConfig = { components: [camera("a"), camera("b")] };
  const { config, both } = merge(base, { components: [camera("a", { fps: 1 })] }, { components: [camera("a", { fps: 2 }), camera("b", { fps: 2 })] });
  assert.deepEqual(config.components, [camera("a", { fps: 1 }), camera("b", { fps: 2 })]);
  assert.deepEqual(both, ["a", "b"]);
});

test("a model is found by its alias, by one word and by the older namespace and type", () => {
  const sim = { api: "rdk:component:camera", model: "gleaner:camera:sim", aliases: ["rdk:builtin:sim"] } as CatalogModel;
  assert.equal(modelOf({ ...camera("c"), model: "gleaner:camera:sim" }, "components", [sim]), sim);
  assert.equal(modelOf({ name: "c", type: "camera", model: "sim" } as unknown as ResourceConfig, "components", [sim]), sim);
  assert.equal(modelOf({ ...camera("c"), model: "other" }, "components", [sim]), undefined);
});

test("capture rows live in service_configs and leave nothing behind", () => {
  const resource: ResourceConfig = { ...camera("c"), service_configs: [{ type: "rdk:service:data_manager", attributes: { retention_policy: { days: 3 } } }] };
  setCaptureMethods(resource, [{ method: "ReadImage", capture_frequency_hz: 1 }]);
  assert.equal(resource.service_configs?.length, 1);
  assert.equal(captureMethods(resource)[0]?.method, "ReadImage");
  setCaptureMethods(resource, []);
  assert.deepEqual(resource.service_configs?.[0]?.attributes?.retention_policy, { days: 3 });
  const plain = camera("d");
  setCaptureMethods(plain, [{ method: "ReadImage" }]);
  setCaptureMethods(plain, []);
  assert.equal(plain.service_configs, undefined);
});

test("how long data is kept stands beside the capture rows and goes without a trace", () => {
  const resource = camera("c");
  setRetentionPolicy(resource, { days: 3 });
  assert.equal(resource.service_configs, undefined); // it captures nothing
  setCaptureMethods(resource, [{ method: "ReadImage" }]);
  setRetentionPolicy(resource, { binary_limit_gb: 2 });
  assert.deepEqual(retentionPolicy(resource), { binary_limit_gb: 2 });
  setRetentionPolicy(resource, undefined);
  assert.deepEqual(resource.service_configs, [{ type: "data_manager", attributes: { capture_methods: [{ method: "ReadImage" }] } }]);
});

test("renaming follows the mentions in other resources and nothing else", () => {
  const config: MachineConfig = {
    components: [camera("cam", { label: "cam" }), { ...camera("overlay", { source: "cam", pipeline: [{ type: "detections", attributes: { detector_name: "eye" } }] }), depends_on: ["cam"] }],
    services: [{ name: "eye", api: "rdk:service:vision", model: "m", attributes: { camera_name: "cam" } }],
  };
  rename(config, "cam", "front");
  assert.deepEqual(config.components![0]!.attributes, { label: "cam" });
  assert.equal(config.components![1]!.attributes!.source, "front");
  assert.deepEqual(config.components![1]!.depends_on, ["front"]);
  assert.equal(config.services![0]!.attributes!.camera_name, "front");
});

test("names are proposed free and checked like the machine checks them", () => {
  const config: MachineConfig = { components: [camera("cam"), camera("cam-2")] };
  assert.equal(freeName(config, "rdk:component:camera"), "cam-3");
  assert.equal(freeName(config, "rdk:service:data_manager"), "data-manager");
  for (const [name, ok] of [["good_1-x", true], ["-bad", false], ["a b", false], ["cam", false], ["", false], ["x".repeat(61), false]] as const) assert.equal(nameProblem(name, config) === "", ok, name);
  assert.equal(nameProblem("cam", config, "cam"), "");
});

test("a model that only a module knows is captured by what its API has", () => {
  const model = (api: string, ...methods: string[]) => ({ api, capture: methods.map((method) => ({ method, title: "", default_hz: 1, params: null })) }) as unknown as CatalogModel;
  const catalog = [model("rdk:component:camera", "ReadImage", "GetImages"), model("rdk:component:camera", "GetImages", "NextPointCloud")];
  const names = (api: string) => captureOf(api, catalog).map((c) => c.method);
  assert.deepEqual(names("rdk:component:camera"), ["ReadImage", "GetImages", "NextPointCloud"]);
  assert.ok(names("rdk:component:movement_sensor").includes("CompassHeading"));
  assert.deepEqual(names("acme:component:greeter"), []);
});
