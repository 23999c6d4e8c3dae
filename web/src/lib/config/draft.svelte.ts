/** A machine configuration being edited: what was loaded, what is on screen, what the app said about it. */
import { ApiError, api, seg } from "../api/client";
import type { MachineConfig, PartConfig, Problem } from "../api/types";
import { changes, merge, same } from "./merge";
import type { Kind } from "./resources";

const clone = (config: MachineConfig): MachineConfig => JSON.parse(JSON.stringify(config)) as MachineConfig;

export class ConfigDraft {
  config = $state<MachineConfig>({});
  /** The saved configuration the edits started from. */
  base = $state.raw<PartConfig>({ config: {}, revision: "", updated_at: "" });
  problems = $state.raw<Problem[]>([]);
  failure = $state.raw<ApiError | null>(null);
  isSaving = $state(false);
  /** Somebody else saved meanwhile: their configuration, until the user has chosen. */
  conflict = $state.raw<PartConfig | null>(null);
  /** Revision saved from this page; shown until the machine runs it. */
  savedRevision = $state("");
  #part: string;

  constructor(part: string) {
    this.#part = part;
  }

  isDirty = $derived(!same($state.snapshot(this.config), this.base.config));
  changes = $derived(this.isDirty ? changes(this.base.config, $state.snapshot(this.config) as MachineConfig) : []);

  load(saved: PartConfig) {
    this.base = saved;
    this.config = clone(saved.config);
    this.#clean();
  }
  /** A newer configuration came in: taken when nothing was edited, else offered as a conflict. */
  receive(saved: PartConfig) {
    if (saved.revision === this.base.revision || this.isSaving) return;
    if (!this.isDirty || same(saved.config, $state.snapshot(this.config))) this.load(saved);
    else this.conflict = saved;
  }
  discard() {
    this.config = clone(this.base.config);
    this.#clean();
  }
  replace(config: MachineConfig) {
    this.config = clone(config);
  }

  async save(): Promise<boolean> {
    const config = $state.snapshot(this.config) as MachineConfig;
    this.isSaving = true;
    this.failure = null;
    try {
      const saved = await api.put<PartConfig>(`/parts/${seg(this.#part)}/config`, { config, base_revision: this.base.revision });
      this.base = saved;
      // Typing may have gone on during the request: only an untouched draft takes what the app answered.
      if (same($state.snapshot(this.config), config)) this.config = clone(saved.config);
      this.savedRevision = saved.revision;
      this.#clean();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 409) this.conflict = await api.get<PartConfig>(`/parts/${seg(this.#part)}/config`);
      else {
        this.problems = error.problems;
        this.failure = error;
      }
      return false;
    } finally {
      this.isSaving = false;
    }
  }

  /** Ends a conflict: theirs as it is, mine over theirs, or my changes on top of theirs. Answers what both had changed. */
  settle(how: "theirs" | "mine" | "merge"): string[] {
    const theirs = this.conflict;
    if (!theirs) return [];
    const mine = $state.snapshot(this.config) as MachineConfig;
    const { config, both } = merge(this.base.config, mine, theirs.config);
    this.load(theirs);
    if (how !== "theirs") this.config = clone(how === "mine" ? mine : config);
    return how === "merge" ? both : [];
  }

  /** `components[0].attributes.path` as people say it: `cam, path`. */
  nameOf(path: string): string {
    const found = /^(components|services)\[(\d+)\]\.?(.*)$/.exec(path);
    const resource = found && this.config[found[1] as Kind]?.[Number(found[2])];
    const tail = found?.[3]?.replace(/^(attributes|service_configs\[\d+\]\.attributes)\.?/, "") ?? path;
    return resource ? [resource.name, tail].filter(Boolean).join(", ") : path || "the configuration";
  }
  /** The last failure was about values; once they are edited its sentence says nothing any more. */
  get hadProblems() {
    return (this.failure?.problems.length ?? 0) > 0;
  }

  problemAt(path: string): string {
    const found = this.problems.find((p) => p.path === path);
    return found ? [found.message, found.hint].filter(Boolean).join(". ") : "";
  }
  problemsUnder(path: string): Problem[] {
    return this.problems.filter((p) => p.path === path || p.path.startsWith(`${path}.`) || p.path.startsWith(`${path}[`));
  }
  /** The value was edited: what was said about it no longer holds. */
  touched(path: string) {
    if (this.problems.length) this.problems = this.problems.filter((p) => p.path !== path && !path.startsWith(`${p.path}.`));
  }
  #clean() {
    this.problems = [];
    this.failure = null;
    this.conflict = null;
  }
}
