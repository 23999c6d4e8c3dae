/** A tiny history router: typed params, pages loaded on demand, one guard for unsaved work. */
import type { Component } from "svelte";
import { compile, type Params } from "./paths";

export type { Params };

// Pages declare their own props; the router hands each one the params of its path.
type Page = { default: Component<any> };
export type Route = { path: string; title: string; load: () => Promise<Page> };
type Match = { route: Route; params: Params };
/** Answers whether leaving is fine; may ask the user. */
export type Guard = (to: string) => boolean | Promise<boolean>;

class Router {
  path = $state(location.pathname);
  search = $state.raw(new URLSearchParams(location.search));
  #routes: { route: Route; match: (path: string) => Params | null }[] = [];
  #guard: Guard | null = null;
  #shown = location.pathname + location.search;

  start(routes: Route[]) {
    this.#routes = routes.map((route) => ({ route, match: compile(route.path) }));
    addEventListener("popstate", () => void this.#arrived());
    addEventListener("click", (event) => this.#clicked(event));
    addEventListener("beforeunload", (event) => {
      if (this.#guard) event.preventDefault();
    });
  }

  match(path: string): Match | null {
    for (const { route, match } of this.#routes) {
      const params = match(path);
      if (params) return { route, params };
    }
    return null;
  }

  async navigate(to: string, options: { replace?: boolean; keepScroll?: boolean } = {}) {
    const target = new URL(to, location.href);
    const next = target.pathname + target.search;
    if (target.pathname !== this.path && !(await this.#mayLeave(next))) return;
    history[options.replace ? "replaceState" : "pushState"](null, "", next + target.hash);
    this.#show(next);
    if (!options.keepScroll) document.querySelector("main")?.scrollTo(0, 0);
  }

  /** Changes the query only, without a new history entry: for filters and open tabs. */
  setSearch(values: Record<string, string | string[] | null | undefined>, options: { push?: boolean } = {}) {
    const params = new URLSearchParams(this.search);
    for (const [name, value] of Object.entries(values)) {
      params.delete(name);
      if (Array.isArray(value)) for (const v of value) params.append(name, v);
      else if (value) params.set(name, value);
    }
    const text = params.toString();
    const next = this.path + (text ? `?${text}` : "");
    if (next === this.#shown) return;
    history[options.push ? "pushState" : "replaceState"](null, "", next);
    this.#show(next);
  }

  /** Only one page is shown, so there is at most one guard; the returned function removes it. */
  guard(guard: Guard): () => void {
    this.#guard = guard;
    return () => {
      if (this.#guard === guard) this.#guard = null;
    };
  }

  async #mayLeave(to: string): Promise<boolean> {
    const guard = this.#guard;
    if (!guard) return true;
    const leave = await guard(to);
    if (leave) this.#guard = null;
    return leave;
  }

  async #arrived() {
    const next = location.pathname + location.search;
    if (this.#guard && location.pathname !== this.path) {
      history.pushState(null, "", this.#shown); // stay until the user has answered
      if (!(await this.#mayLeave(next))) return;
      history.pushState(null, "", next);
    }
    this.#show(next);
  }

  #show(next: string) {
    const target = new URL(next, location.href);
    this.#shown = next;
    this.path = target.pathname;
    this.search = target.searchParams;
  }

  #clicked(event: MouseEvent) {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element).closest?.("a[href]") as HTMLAnchorElement | null;
    if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (!this.match(link.pathname)) return; // files and API addresses are the browser's business
    event.preventDefault();
    void this.navigate(link.pathname + link.search + link.hash);
  }
}

export const router = new Router();
export const go = (to: string, options?: { replace?: boolean }) => router.navigate(to, options);
