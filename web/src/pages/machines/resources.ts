/** What a machine's parts are called and made of, for the pages. */
import Bot from "@lucide/svelte/icons/bot";
import Brain from "@lucide/svelte/icons/brain";
import Camera from "@lucide/svelte/icons/camera";
import Cog from "@lucide/svelte/icons/cog";
import Database from "@lucide/svelte/icons/database";
import Eye from "@lucide/svelte/icons/eye";
import Gauge from "@lucide/svelte/icons/gauge";
import type { ResourceStatus } from "$lib/api/types";

const ICONS: Record<string, typeof Cog> = { camera: Camera, base: Bot, sensor: Gauge, vision: Eye, mlmodel: Brain, data_manager: Database };

export const subtype = (api: string) => api.split(":").at(-1) ?? api;
export const isService = (api: string) => api.split(":")[1] === "service";
export const iconOf = (api: string) => ICONS[subtype(api)] ?? Cog;

const NAMES: Record<string, string> = { mlmodel: "ML model", data_manager: "Data manager" };
export function kindName(api: string): string {
  const kind = subtype(api);
  return NAMES[kind] ?? kind.charAt(0).toUpperCase() + kind.slice(1).replaceAll("_", " ");
}

export const ofKind = (resources: readonly ResourceStatus[], kind: string) => resources.filter((r) => subtype(r.api) === kind);
