/** How far a model is on a machine, in words. */
import type { Deployment, DeploymentState } from "$lib/api/types";

export const STATES: Record<DeploymentState, { title: string; tone: "neutral" | "good" | "warn" | "bad" | "info" | "accent" }> = {
  saving: { title: "Saving", tone: "accent" },
  downloading: { title: "Downloading", tone: "accent" },
  loading: { title: "Loading", tone: "accent" },
  running: { title: "Running", tone: "good" },
  failed: { title: "Failed", tone: "bad" },
  offline: { title: "Machine offline", tone: "neutral" },
};

/** The steps of a deployment, in order. */
export const STEPS: { state: DeploymentState; title: string }[] = [
  { state: "saving", title: "Saved in the machine's configuration" },
  { state: "downloading", title: "Model downloaded by the machine" },
  { state: "loading", title: "Model loaded" },
  { state: "running", title: "Running" },
];

export const isMoving = (d: Deployment): boolean => d.state === "saving" || d.state === "downloading" || d.state === "loading";

/** Where the model's answers lie over the live picture. */
export function liveLink(d: Deployment, camera?: string): string {
  const query = new URLSearchParams();
  if (camera) query.set("camera", camera);
  if (d.vision) query.set("vision", d.vision);
  return `/machines/${encodeURIComponent(d.machine.id)}/control?${query}`;
}
