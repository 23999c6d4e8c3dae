/** Sends a zip as it is, with the progress that fetch cannot tell. */
import { ApiError, url } from "$lib/api/client";
import type { ErrorAnswer } from "$lib/api/types";
import type { components } from "$lib/api/schema";

export type ImportAnswer = components["schemas"]["ImportAnswer"];

export function sendZip(path: string, file: File, told: (fraction: number) => void, signal: AbortSignal): Promise<ImportAnswer> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url(path));
    request.setRequestHeader("content-type", "application/zip");
    request.responseType = "json";
    request.upload.onprogress = (event) => told(event.total ? event.loaded / event.total : 0);
    request.onload = () => {
      if (request.status === 200) return resolve(request.response as ImportAnswer);
      const error = (request.response as Partial<ErrorAnswer> | null)?.error;
      reject(new ApiError(request.status, error?.code ?? "unexpected", error?.message ?? `The app answered ${request.status}`, error?.hint));
    };
    request.onerror = () => reject(new ApiError(0, "unreachable", "The app does not answer", "Send it again: nothing is stored twice."));
    request.onabort = () => reject(new ApiError(0, "aborted", "The import was stopped", "Send it again: nothing is stored twice."));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
