import type { MlModel } from "../api/types";

/** What the deployed model's report suggests for this vision service, if it is one of ours. */
export function suggestedThreshold(models: readonly MlModel[], part: string, vision: string): number | null {
  for (const model of models) {
    const deployed = model.deployments.find((d) => d.part.id === part && d.vision === vision);
    if (!deployed) continue;
    const version = model.versions.find((v) => v.version === deployed.version) ?? model.versions[0];
    return version?.suggested_threshold ?? null;
  }
  return null;
}
