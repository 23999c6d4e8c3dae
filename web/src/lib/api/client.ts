/** The one door to the app: every failure becomes an ApiError that says what failed and what to do next. */
import type { ErrorAnswer, Problem } from "./types";

export class ApiError extends Error {
  constructor(
    /** HTTP status; 0 when the app could not be reached at all. */
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint = "",
    readonly problems: Problem[] = [],
  ) {
    super(message);
    this.name = "ApiError";
  }
}

export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(0, "unexpected", error instanceof Error ? error.message : String(error), "Reload the page; if it happens again, report it with these words.");
}

type Scalar = string | number | boolean | null | undefined;
export type Query = Record<string, Scalar | readonly (string | number)[]>;

/** `{tag: ["a","b"], kind: "image"}` → `tag=a&tag=b&kind=image`; empty values are left out. */
export function queryString(query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (Array.isArray(value)) for (const v of value) params.append(name, String(v));
    else if (value !== undefined && value !== null && value !== "") params.set(name, String(value));
  }
  const text = params.toString();
  return text ? `?${text}` : "";
}

/** `path` is below /api; pieces that come from data must go through `seg`. */
export const url = (path: string, query?: Query) => `/api${path}${queryString(query)}`;
export const seg = encodeURIComponent;

let onUnauthenticated: () => void = () => {};
export function whenUnauthenticated(handler: () => void) {
  onUnauthenticated = handler;
}

async function failure(response: Response): Promise<ApiError> {
  const body: unknown = await response.json().catch(() => null);
  const error = (body as Partial<ErrorAnswer> | null)?.error;
  if (error?.message) return new ApiError(response.status, error.code, error.message, error.hint, error.problems);
  return new ApiError(response.status, "unexpected", `The app answered ${response.status} ${response.statusText}`, "Look at the app's terminal for the cause.");
}

export async function request(method: string, path: string, options: { query?: Query; body?: unknown; signal?: AbortSignal } = {}): Promise<Response> {
  const { query, body, signal } = options;
  const form = body instanceof FormData || body instanceof Blob;
  let response: Response;
  try {
    response = await fetch(url(path, query), {
      method,
      signal,
      credentials: "same-origin",
      headers: body === undefined || form ? { accept: "application/json" } : { accept: "application/json", "content-type": "application/json" },
      body: body === undefined ? undefined : form ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The app does not answer", "Check that `gleaner app` is running and that this computer can reach it. Nothing you typed is lost.");
  }
  if (response.ok) return response;
  const error = await failure(response);
  if (response.status === 401 && !path.startsWith("/auth/")) onUnauthenticated();
  throw error;
}

async function json<T>(method: string, path: string, options?: Parameters<typeof request>[2]): Promise<T> {
  const response = await request(method, path, options);
  const text = await response.text();
  return (text ? JSON.parse(text) : {}) as T;
}

/** The answer's bytes; `onBeginning` gets the first of them as soon as there are `enough`, while the others are on their way. */
async function streamed(path: string, query: Query, signal: AbortSignal, enough: number, onBeginning: (bytes: Uint8Array) => void): Promise<ArrayBuffer> {
  const response = await request("GET", path, { query, signal });
  const reader = response.body?.getReader();
  if (!reader) return response.arrayBuffer();
  let bytes = new Uint8Array(Number(response.headers.get("content-length")) || 1 << 16);
  let length = 0;
  let isTold = false;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (length + part.value.length > bytes.length) {
      const larger = new Uint8Array(Math.max(2 * bytes.length, length + part.value.length));
      larger.set(bytes.subarray(0, length));
      bytes = larger;
    }
    bytes.set(part.value, length);
    length += part.value.length;
    if (!isTold && length >= enough) onBeginning(bytes.slice(0, length));
    isTold ||= length >= enough;
  }
  return bytes.buffer.slice(0, length);
}

export const api = {
  get: <T>(path: string, query?: Query, signal?: AbortSignal) => json<T>("GET", path, { query, signal }),
  post: <T>(path: string, body: unknown = {}, query?: Query, signal?: AbortSignal) => json<T>("POST", path, { body, query, signal }),
  put: <T>(path: string, body: unknown, query?: Query) => json<T>("PUT", path, { body, query }),
  patch: <T>(path: string, body: unknown, query?: Query) => json<T>("PATCH", path, { body, query }),
  delete: <T>(path: string, query?: Query) => json<T>("DELETE", path, { query }),
  streamed,
  /** What a question answers as a file; the browser keeps it, on disk if it is large. */
  file: async (path: string, body: unknown, query: Query, signal: AbortSignal) => (await request("POST", path, { body, query, signal })).blob(),
  bytes: async (path: string, query?: Query, signal?: AbortSignal) => (await request("GET", path, { query, signal })).arrayBuffer(),
};
