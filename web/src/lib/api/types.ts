/**
 * What crosses the app's REST and WebSocket doors, as the pages see it. REST's types are generated from its OpenAPI (`make docs`);
 * written here by hand is only what OpenAPI does not describe: Viam's machine configuration, JSON Schema, the training report and
 * the messages of the WebSockets (docs/architecture.md).
 */
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Ref = Schemas["Named"];
export type Problem = Schemas["ProblemModel"];
export type ErrorAnswer = Schemas["ErrorAnswer"];

export type Me = Schemas["MeModel"];
export type ApiKey = Schemas["ApiKeyModel"];
export type NewApiKey = Schemas["NewApiKeyModel"];
export type Location = Schemas["LocationModel"];

export type OnlineState = Machine["online_state"];
export type PartInfo = Schemas["PartInfo"];
export type Part = Schemas["PartModel"];
export type Machine = Schemas["MachineModel"];

export type CaptureMethod = {
  method: string;
  capture_frequency_hz?: number;
  additional_params?: Record<string, unknown>;
  disabled?: boolean;
  [key: string]: unknown;
};
/** How long the app keeps data, in Viam's words; of the whole machine only by days. */
export type RetentionPolicy = { days?: number; binary_limit_gb?: number; tabular_limit_gb?: number };
export type ResourceConfig = {
  name: string;
  api: string;
  model: string;
  attributes?: Record<string, unknown>;
  depends_on?: string[];
  service_configs?: { type: string; attributes?: { capture_methods?: CaptureMethod[]; retention_policy?: RetentionPolicy; [key: string]: unknown } }[];
  [key: string]: unknown;
};
export type MachineConfig = {
  components?: ResourceConfig[];
  services?: ResourceConfig[];
  packages?: { name: string; package: string; version?: string; type?: string }[];
  data_retention_policy?: RetentionPolicy;
  [key: string]: unknown;
};
export type PartConfig = Omit<Schemas["PartConfigModel"], "config"> & { config: MachineConfig };
export type ConfigRevision = Omit<Schemas["ConfigRevisionModel"], "config"> & { config: MachineConfig };
export type SetupFile = Schemas["SetupFileModel"];

export type ResourceStatus = Schemas["ResourceStatusModel"];
export type ResourceState = ResourceStatus["state"];
export type PackageStatus = Schemas["PackageStatusModel"];
export type Collector = Schemas["CollectorModel"];
export type Ledger = Schemas["LedgerModel"];
/** A row of the data manager's answer to `{"ledger": {"hours": n}}`. */
export type HourRow = Pick<Collector, "component" | "method" | "captured" | "synced" | "waiting" | "dropped"> & { hour: string };
export type PartStatus = Schemas["PartStatusModel"];
/** A line of a machine's log or of a job's; only the first names its logger. */
export type LogLine = Schemas["JobLineModel"] & Partial<Pick<Schemas["LogLineModel"], "logger">>;
export type LogPage = Schemas["LogPageModel"];

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
export type CaptureMethodSpec = Omit<Schemas["CaptureMethodModel"], "params"> & { params: JsonSchema | null };
export type CatalogModel = Omit<Schemas["CatalogModel"], "attributes" | "capture"> & { attributes: JsonSchema; capture: CaptureMethodSpec[] };

export type Box = Schemas["BoxModel"];
export type Score = Schemas["ClassificationModel"];
export type Item = Schemas["ItemModel"];
export type Facet = Schemas["FacetModel"];
export type Facets = Schemas["FacetsModel"];
export type ItemFilter = Partial<Schemas["FilterModel"]>;
export type Rows = Pick<Schemas["Chosen"], "rows" | "filter">;
export type ReadingSeries = Schemas["SeriesModel"];
export type ReadingRow = Schemas["ReadingModel"];

export type DatasetVersion = Schemas["VersionModel"];
export type Dataset = Schemas["DatasetModel"];
export type SequencePage = Schemas["SequencesModel"];
export type SavedView = Schemas["ViewModel"];
export type DatasetCheck = Schemas["Check"];
export type Settled = Schemas["SettledModel"];
export type QueryRows = Schemas["QueryRows"];
export type SavedQuery = Schemas["SavedQueryModel"];
export type DataPipeline = Schemas["PipelineModel"];
export type SuggestedTag = Schemas["SuggestedTagModel"];
export type SuggestedTags = Schemas["SuggestedTags"];

export type Metrics = Schemas["MetricsModel"];
export type Job = Schemas["JobModel"];
export type JobStatus = Job["status"];
export type ModelType = Exclude<Job["model_type"], "custom">;
export type TrainingScript = Schemas["TrainingScript"];

export type Deployment = Schemas["DeploymentModel"];
export type DeploymentState = Deployment["state"];
export type ModelVersion = Schemas["ModelVersionModel"];
export type MlModel = Schemas["MlModelModel"];
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
  summary: { accuracy: number; accuracy_interval: [number, number]; macro_f1: number; test_count: number; suggested_threshold: number; ece: number; box_count?: number; map50?: number | null; map50_interval?: [number, number] | null; map50_95?: number | null };
  per_label: { label: string; support: number; precision: number; recall: number; f1: number; average_precision: number | null }[];
  confusion: { labels: string[]; matrix: number[][]; cells: Record<string, string[]> };
  threshold_curve: { threshold: number; precision: number; recall: number; f1: number }[];
  wrong: { id: string; expected: string[]; predicted: { label: string; confidence: number }[]; sample: string | null; looked_at?: { label: string; sample: string } | null }[];
  /** Missing in reports of older versions; `reason` says why it was not looked for. */
  label_errors?: { checked: number; reason: string; pictures: LabelDoubt[] };
  learning_curve?: { more: number; reason: string; labels: Outlook[] };
  skipped: { id: string; reason: string }[];
  history: Metrics[];
  timings: { train_s: number; export_s: number; inference_ms: number };
  model: { size_bytes: number; parameters: number; input_shape: number[]; formats?: Record<string, ModelFormat> };
};

export type ModelFormat = { file: string; size_bytes: number; inference_ms: number; largest_difference: number | null; lost?: number; measure?: string; judged?: number } | { file?: undefined; reason: string };
export type LabelDoubt = {
  id: string;
  expected: string[];
  suggested: string[];
  confidence: number;
  part: "train" | "validation" | "test";
  sample: string | null;
  /** Of a detector: what is wrong with which box. */
  boxes?: { kind: "missing" | "label" | "nothing"; label: string | null; suggested: string | null; confidence: number }[];
};
export type Outlook = {
  label: string;
  pictures: number;
  verdict: "more" | "nothing" | "unknown";
  gain: number | null;
  gain_interval: [number, number] | null;
  why: string;
  points: { pictures: number; average_precision: number }[];
};

export type LiveDetection = { label: string; track?: number; confidence: number; x_min: number; y_min: number; x_max: number; y_max: number };
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
