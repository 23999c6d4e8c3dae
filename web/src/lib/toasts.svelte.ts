/** Short messages at the bottom of the page, with one action (undo). */
import { asApiError } from "./api/client";

export type Toast = {
  id: number;
  message: string;
  detail?: string;
  kind: "info" | "good" | "bad";
  action?: { label: string; run: () => void };
};
const SHOWN_MS = 5000;
const WITH_ACTION_MS = 10_000;

class Toasts {
  list = $state.raw<Toast[]>([]);
  #next = 1;
  #timers = new Map<number, number>();

  show(message: string, options: Partial<Omit<Toast, "id" | "message">> = {}): number {
    const toast: Toast = { id: this.#next++, message, kind: "info", ...options };
    this.list = [...this.list.slice(-3), toast];
    this.resume(toast.id);
    return toast.id;
  }
  good(message: string, action?: Toast["action"]) {
    return this.show(message, { kind: "good", action });
  }
  /** An error in the app's own words: what failed, and the hint what to do next. */
  failed(error: unknown, what = "") {
    const { message, hint } = asApiError(error);
    return this.show(what ? `${what}: ${message}` : message, { kind: "bad", detail: hint });
  }
  dismiss(id: number) {
    this.hold(id);
    this.list = this.list.filter((t) => t.id !== id);
  }
  /** Pointer or focus is on it: it stays. */
  hold(id: number) {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }
  resume(id: number) {
    const toast = this.list.find((t) => t.id === id);
    if (!toast) return;
    this.hold(id);
    this.#timers.set(id, window.setTimeout(() => this.dismiss(id), toast.action || toast.kind === "bad" ? WITH_ACTION_MS : SHOWN_MS));
  }
}

export const toasts = new Toasts();
