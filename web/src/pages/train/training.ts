/** What training offers, and how a run is told. */
import { plural } from "$lib/format";
import type { Job, JobStatus, ModelType, Report } from "$lib/api/types";

export const MODEL_TYPES: { value: ModelType; title: string; text: string }[] = [
  { value: "single_label_classification", title: "Single label", text: "One answer for each picture: this, or that, or none of these." },
  { value: "multi_label_classification", title: "Multi label", text: "Any number of answers for each picture: everything that is in it." },
  { value: "object_detection", title: "Object detection", text: "Where things are: learns from the boxes you draw instead of tags." },
];

/** What a run learns, in a line: its labels, or the script that decides it. */
export const learned = (job: Job): string => (job.script ? `${job.script.name} ${job.script.version}` : plural(job.labels.length, "label"));

export const isDetection = (type: string): boolean => type === "object_detection";

/** What a model's figure is called. */
export const figureName = (type: string): string => (isDetection(type) ? "mAP50" : "accuracy");

/** The one figure of a report, with its 95 % interval; null where nothing was tested. */
export function headline(report: Report): { value: number; interval: [number, number] } | null {
  const s = report.summary;
  const [value, interval] = isDetection(report.task) ? [s.map50, s.map50_interval] : [s.accuracy, s.accuracy_interval];
  return s.test_count > 0 && value != null && interval ? { value, interval } : null;
}

/** Of a job's or a model's type; a model that was uploaded may have any, or none. */
export const typeTitle = (type: string): string => type === "custom" ? "Training script" : (MODEL_TYPES.find((t) => t.value === type)?.title ?? (type || "Uploaded"));

export const TIME_BUDGETS = [
  { seconds: 10, title: "10 s", text: "at once" },
  { seconds: 30, title: "30 s", text: "a first look" },
  { seconds: 60, title: "60 s", text: "good for most" },
  { seconds: 300, title: "5 min", text: "the last few percent" },
];

export const STATUS: Record<JobStatus, { title: string; tone: "neutral" | "good" | "warn" | "bad" | "info" | "accent" }> = {
  pending: { title: "Pending", tone: "neutral" },
  in_progress: { title: "In progress", tone: "accent" },
  completed: { title: "Completed", tone: "good" },
  failed: { title: "Failed", tone: "bad" },
  canceled: { title: "Canceled", tone: "neutral" },
  canceling: { title: "Canceling", tone: "warn" },
};

export const isRunning = (job: Job): boolean => ["pending", "in_progress", "canceling"].includes(job.status);

/** An accuracy: 100 %, 97.3 %, never a rounded-up 100.0 %. */
export const score = (share: number): string => `${Math.floor(share * 1000 + 1e-9) / 10} %`;

/** Seconds from start to end, or to now. */
export function elapsedSeconds(job: Job, nowMs: number): number | null {
  if (!job.started_at) return null;
  return ((job.ended_at ? new Date(job.ended_at).getTime() : nowMs) - new Date(job.started_at).getTime()) / 1000;
}
