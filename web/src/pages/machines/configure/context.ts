import type { MachineConfig } from "$lib/api/types";
import { apiOf, KINDS } from "$lib/config/resources";

/** What every field of the form may ask for. */
export type FormContext = {
  /** What the app said about a path such as `components[0].attributes.path`, or "". */
  problem: (path: string) => string;
  touched: (path: string) => void;
  /** Names of this machine's resources of a kind such as `camera`. */
  names: (subtype: string) => string[];
};

export function namesOf(config: MachineConfig, subtype: string): string[] {
  return KINDS.flatMap((kind) => (config[kind] ?? []).filter((r) => apiOf(r, kind).split(":").at(-1) === subtype).map((r) => r.name));
}
