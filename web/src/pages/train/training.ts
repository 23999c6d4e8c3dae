/** What training offers, and how a run is told. */
import type { Job, JobStatus, ModelType } from "$lib/api/types";

export const MODEL_TYPES: { value: ModelType; title: string; text: string; isComing?: boolean }[] = [
  { value: "single_label_classification", title: "Single label", text: "One answer for each picture: this, or that, or none of these." },
  { value: "multi_label_classification", title: "Multi label", text: "Any number of answers for each picture: everything that is in it." },
  { value: "object_detection", title: "Object detection", text: "Where things are: learns from boxes instead of tags.", isComing: true },
];

/** Of a job's or a model's type; a model that was uploaded may have any, or none. */
export const typeTitle = (type: string): string => MODEL_TYPES.find((t) => t.value === type)?.title ?? (type || "Uploaded");

export const TIME_BUDGETS = [
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
