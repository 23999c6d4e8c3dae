/** One reconnecting WebSocket with what changes on the server; pages' queries are refreshed from it. */
import type { QueryClient } from "@tanstack/svelte-query";
import { keys } from "./api/keys";
import type { AppEvent, Job, PartStatus } from "./api/types";

type Kind = AppEvent["type"];
type Of<K extends Kind> = Extract<AppEvent, { type: K }>;
const FIRST_RETRY_MS = 400;
const LONGEST_RETRY_MS = 8000;
/** Capture can add many items a second; the lists are refreshed at most this often. */
const ITEMS_REFRESH_MS = 1000;

class Events {
  state = $state<"idle" | "connecting" | "open" | "lost">("idle");
  #socket: WebSocket | null = null;
  #client: QueryClient | null = null;
  #listeners = new Map<Kind, Set<(event: AppEvent) => void>>();
  #attempt = 0;
  #timer = 0;
  #itemsTimer = 0;
  #wanted = false;

  start(client: QueryClient) {
    this.#client = client;
    if (this.#wanted) return;
    this.#wanted = true;
    addEventListener("online", this.#now);
    document.addEventListener("visibilitychange", this.#now);
    this.#connect();
  }

  stop() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    removeEventListener("online", this.#now);
    document.removeEventListener("visibilitychange", this.#now);
    this.#socket?.close();
    this.#socket = null;
    this.state = "idle";
  }

  /** Calls `handler` for each event of a kind; use inside `$effect` and return the result. */
  on<K extends Kind>(kind: K, handler: (event: Of<K>) => void): () => void {
    const set = this.#listeners.get(kind) ?? new Set();
    this.#listeners.set(kind, set);
    set.add(handler as (event: AppEvent) => void);
    return () => void set.delete(handler as (event: AppEvent) => void);
  }

  #now = () => {
    if (this.state !== "lost" || document.visibilityState === "hidden") return;
    clearTimeout(this.#timer);
    this.#connect();
  };

  #connect() {
    this.state = this.#attempt ? "lost" : "connecting";
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/events`);
    this.#socket = socket;
    socket.onopen = () => {
      const again = this.#attempt > 0;
      this.#attempt = 0;
      this.state = "open";
      if (again) void this.#client?.invalidateQueries(); // whatever happened meanwhile
    };
    socket.onmessage = (message: MessageEvent<string>) => this.#receive(JSON.parse(message.data) as AppEvent);
    socket.onclose = () => {
      if (!this.#wanted || this.#socket !== socket) return;
      this.state = "lost";
      const wait = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempt++);
      this.#timer = window.setTimeout(() => this.#connect(), wait * (0.75 + Math.random() / 2));
    };
  }

  #receive(event: AppEvent) {
    this.#refresh(event);
    for (const handler of this.#listeners.get(event.type) ?? []) handler(event);
  }

  #refresh(event: AppEvent) {
    const client = this.#client;
    if (!client) return;
    const stale = (...queryKey: string[]) => void client.invalidateQueries({ queryKey });
    switch (event.type) {
      case "items_added":
      case "items_changed":
        this.#itemsTimer ||= window.setTimeout(() => {
          this.#itemsTimer = 0;
          for (const topic of ["items", "readings", "datasets", "dataset", "machines"]) stale(topic);
        }, ITEMS_REFRESH_MS);
        break;
      case "dataset_changed":
        stale("datasets");
        stale("dataset", event.id);
        break;
      case "job":
        client.setQueryData(keys.job(event.job.id), event.job);
        client.setQueriesData<Job[]>({ queryKey: ["jobs"] }, (old) => old && mergeJob(old, event.job));
        break;
      case "part_status": {
        const { type: _, part_id, ...status } = event;
        client.setQueryData<PartStatus>(keys.partStatus(part_id), (old) => ({ ...old, ...status }));
        break;
      }
      case "config_changed":
        stale("part-config", event.part_id);
        stale("models");
        break;
      case "machine_changed":
        stale("machines");
        stale("machine", event.machine_id);
        stale("part-status");
        stale("models");
        break;
      case "model_changed":
        stale("models");
        stale("model", event.name);
        break;
    }
  }
}

function mergeJob(jobs: Job[], job: Job): Job[] {
  return jobs.some((j) => j.id === job.id) ? jobs.map((j) => (j.id === job.id ? job : j)) : [job, ...jobs];
}

export const events = new Events();
