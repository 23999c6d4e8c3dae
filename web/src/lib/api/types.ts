/** What crosses the app's REST and WebSocket doors (docs/architecture.md), as the pages see it. */

export type Ref = { id: string; name: string };
export type Problem = { path: string; message: string; hint?: string };

export type Me = {
  user: { id: string; email: string; name: string; has_password: boolean };
  organizations: { id: string; name: string; role: string }[];
  app: { version: string; web_address: string; grpc_address: string; tls: boolean; fingerprint: string };
};
export type ApiKey = { id: string; name: string; created_at: string; role: string; resource_type: string; resource_id: string };
export type NewApiKey = ApiKey & { key: string };
export type Location = { id: string; name: string; machine_count: number };

export type OnlineState = "online" | "offline" | "awaiting_setup";
export type PartInfo = { version?: string; host?: string; os?: string; platform?: string; ips?: string[] };
export type Part = { id: string; name: string; main: boolean; online_state: OnlineState; last_seen: string | null; info: PartInfo | null };
export type Machine = {
  id: string;
  name: string;
  location: Ref;
  organization_id: string;
  online_state: OnlineState;
  last_seen: string | null;
  created_at: string;
  items_48h: number;
  parts: Part[];
};

export type CaptureMethod = {
  method: string;
  capture_frequency_hz?: number;
  additional_params?: Record<string, unknown>;
  disabled?: boolean;
  [key: string]: unknown;
};
export type ResourceConfig = {
  name: string;
  api: string;
  model: string;
  attributes?: Record<string, unknown>;
  depends_on?: string[];
  service_configs?: { type: string; attributes?: { capture_methods?: CaptureMethod[]; [key: string]: unknown } }[];
  [key: string]: unknown;
};
export type MachineConfig = {
  components?: ResourceConfig[];
  services?: ResourceConfig[];
  packages?: { name: string; package: string; version?: string; type?: string }[];
  [key: string]: unknown;
};
export type PartConfig = { config: MachineConfig; revision: string; updated_at: string };
export type ConfigRevision = { revision: string; when: string; edited_by: string; config: MachineConfig };
export type SetupFile = { machine_json: { cloud: Record<string, unknown> }; install: string[]; run: string[] };

export type ResourceState = "unconfigured" | "configuring" | "ready" | "removing" | "unhealthy";
export type ResourceStatus = { name: string; api: string; model: string; state: ResourceState; error: string };
export type PackageStatus = { name: string; version: string; state: "downloading" | "loading" | "ready" | "failed"; error: string };
export type Collector = {
  component: string;
  method: string;
  captured: number;
  stored: number;
  waiting: number;
  synced: number;
  dropped: Record<string, number>;
  frequency_hz: number;
  last_error: string;
};
export type Ledger = { collectors: Collector[]; backlog_files: number; backlog_bytes: number; oldest_unsent: string | null; sync_error: string };
export type PartStatus = {
  online_state: OnlineState;
  last_seen: string | null;
  info: PartInfo | null;
  config_revision: string;
  running_revision: string | null;
  resources: ResourceStatus[];
  packages: PackageStatus[];
  capture: Ledger | null;
};
export type LogLine = { id: string | number; time: string; level: string; logger?: string; message: string };

export type JsonSchema = {
  type?: string | string[];
  title?: string;
  description?: string;
  default?: unknown;
  enum?: unknown[];
  const?: unknown;
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  allOf?: JsonSchema[];
  $ref?: string;
  $defs?: Record<string, JsonSchema>;
  properties?: Record<string, JsonSchema>;
  required?: string[];
  items?: JsonSchema;
  prefixItems?: JsonSchema[];
  additionalProperties?: boolean | JsonSchema;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  multipleOf?: number;
  minItems?: number;
  maxItems?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  format?: string;
  unit?: string;
  examples?: unknown[];
  [key: string]: unknown;
};
export type CatalogModel = {
  api: string;
  model: string;
  aliases?: string[];
  title: string;
  description: string;
  icon: string;
  attributes: JsonSchema;
  capture: { method: string; title: string; default_hz: number; params: JsonSchema | null }[];
};

export type Box = { id: string; label: string; x_min: number; y_min: number; x_max: number; y_max: number; confidence: number | null };
export type Score = { label: string; confidence: number | null };
export type Item = {
  row: number;
  id: string;
  kind: "image" | "point_cloud" | "file" | "reading";
  file_name: string;
  file_ext: string;
  mime_type: string;
  size_bytes: number;
  width: number | null;
  height: number | null;
  captured_at: string;
  received_at: string;
  synced_at: string;
  organization_id: string;
  location: Ref | null;
  machine: Ref | null;
  part: Ref | null;
  component_name: string;
  component_type: string;
  method: string;
  tags: string[];
  boxes: Box[];
  classifications: Score[];
  datasets: Ref[];
};
export type Facet = { value: string; label: string; count: number };
export type Facets = { total: number; total_bytes: number; untagged: number } & Record<
  "kinds" | "machines" | "locations" | "components" | "methods" | "mime_types" | "tags" | "labels" | "datasets",
  Facet[]
>;
export type ItemFilter = {
  organization_id?: string;
  location_id?: string[];
  machine_id?: string[];
  part_id?: string[];
  component_name?: string[];
  component_type?: string[];
  method?: string[];
  mime_type?: string[];
  tag?: string[];
  tagged?: "tagged" | "untagged";
  label?: string[];
  dataset_id?: string[];
  start?: string;
  end?: string;
  kind?: Item["kind"];
  search?: string;
};
export type Rows = { rows: number[] } | { filter: ItemFilter };
export type ReadingSeries = { part: Ref; component_name: string; method: string; count: number; first: string; last: string; latest: Record<string, unknown> };
export type ReadingRow = { time: string; readings: Record<string, unknown> };

export type DatasetVersion = { version: string; created_at: string; item_count: number; hash: string };
export type Dataset = {
  id: string;
  name: string;
  organization_id: string;
  created_at: string;
  item_count: number;
  untagged: number;
  labels: Facet[];
  cover_rows: number[];
  versions: DatasetVersion[];
};
export type DatasetCheck = { warnings: { message: string; hint: string }[]; counts: { label: string; count: number }[]; untagged: number };

export type Metrics = {
  t_s: number;
  step: number;
  train_loss: number;
  train_accuracy: number;
  validation_loss: number | null;
  validation_accuracy: number | null;
};
export type JobStatus = "pending" | "in_progress" | "completed" | "failed" | "canceled" | "canceling";
export type ModelType = "single_label_classification" | "multi_label_classification" | "object_detection";
export type Job = {
  id: string;
  status: JobStatus;
  model_name: string;
  model_version: string;
  model_type: ModelType;
  labels: string[];
  dataset: { id: string; name: string; version: string; item_count: number };
  organization_id: string;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  time_budget_s: number;
  progress: { fraction: number; phase: string; eta_s: number | null };
  metrics: Metrics[];
  warnings: string[];
  error: { message: string; hint: string } | null;
};

export type DeploymentState = "saving" | "downloading" | "loading" | "running" | "failed" | "offline";
export type Deployment = {
  part: Ref;
  machine: Ref;
  version: string;
  state: DeploymentState;
  error: string;
  mlmodel: string;
  vision: string;
  transform: string;
};
export type ModelVersion = {
  version: string;
  created_at: string;
  accuracy: number | null;
  suggested_threshold: number | null;
  size_bytes: number;
  job_id: string | null;
  dataset: { id: string; name: string; version?: string } | null;
};
export type MlModel = { id: string; name: string; model_type: ModelType; labels: string[]; versions: ModelVersion[]; deployments: Deployment[] };
export type Report = {
  format: number;
  task: ModelType;
  labels: string[];
  model_name: string;
  model_version: string;
  created_at: string;
  dataset: { hash: string; item_count: number; split: { train: number; validation: number; test: number } };
  config: Record<string, unknown>;
  versions: Record<string, string>;
  summary: { accuracy: number; accuracy_interval: [number, number]; macro_f1: number; test_count: number; suggested_threshold: number; ece: number };
  per_label: { label: string; support: number; precision: number; recall: number; f1: number; average_precision: number }[];
  confusion: { labels: string[]; matrix: number[][]; cells: Record<string, string[]> };
  threshold_curve: { threshold: number; precision: number; recall: number; f1: number }[];
  wrong: { id: string; expected: string[]; predicted: { label: string; confidence: number }[]; sample: string }[];
  skipped: { id: string; reason: string }[];
  history: Metrics[];
  timings: { train_s: number; export_s: number; inference_ms: number };
  model: { size_bytes: number; parameters: number; input_shape: number[] };
};

export type LiveDetection = { label: string; confidence: number; x_min: number; y_min: number; x_max: number; y_max: number };
export type LiveHeader = {
  seq: number;
  captured_at: string;
  width: number;
  height: number;
  mime_type: string;
  detections: LiveDetection[];
  classifications: { label: string; confidence: number }[];
  inference_ms: number | null;
  fetch_ms: number | null;
};

export type AppEvent =
  | { type: "items_added"; count: number; rows: number[] }
  | { type: "items_changed"; rows: number[] | null }
  | { type: "dataset_changed"; id: string }
  | { type: "job"; job: Job }
  | { type: "job_log"; job_id: string; logs: LogLine[] }
  | ({ type: "part_status"; part_id: string } & PartStatus)
  | { type: "part_log"; part_id: string; logs: LogLine[] }
  | { type: "config_changed"; part_id: string; revision: string }
  | { type: "machine_changed"; machine_id: string }
  | { type: "model_changed"; name: string };
