/** Who is logged in and which organization the pages show. */
import { api, asApiError, whenUnauthenticated, type ApiError } from "./api/client";
import type { Me } from "./api/types";
import { remember, remembered } from "./remembered";

class Session {
  state = $state<"loading" | "in" | "out" | "unreachable">("loading");
  me = $state.raw<Me | null>(null);
  error = $state.raw<ApiError | null>(null);
  #organization = $state(remembered("organization", ""));

  constructor() {
    whenUnauthenticated(() => {
      this.me = null;
      this.state = "out";
    });
  }

  get organization() {
    const all = this.me?.organizations ?? [];
    return all.find((o) => o.id === this.#organization) ?? all[0] ?? null;
  }
  /** Empty only while nobody is logged in. */
  get organizationId(): string {
    return this.organization?.id ?? "";
  }
  chooseOrganization(id: string) {
    this.#organization = id;
    remember("organization", id);
  }

  async load() {
    try {
      this.entered(await api.get<Me>("/auth/me"));
    } catch (caught) {
      const error = asApiError(caught);
      this.error = error;
      this.state = error.status === 401 || error.status === 403 ? "out" : "unreachable";
    }
  }
  entered(me: Me) {
    this.me = me;
    this.error = null;
    this.state = "in";
  }
  async logout() {
    await api.post("/auth/logout");
    this.me = null;
    this.state = "out";
  }
}

export const session = new Session();
