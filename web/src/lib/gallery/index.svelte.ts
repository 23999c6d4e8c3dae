/**
 * The row numbers that match the filter, newest first, kept current while pictures arrive. The whole list is four
 * bytes a picture, so a million of them is one 4 MB answer and any of them can be jumped to.
 */
export class RowIndex {
  ids = $state.raw<Uint32Array>(new Uint32Array(0));
  /** A newer list with pictures on top, held back while the user is looking further down. */
  pending = $state.raw<Uint32Array | null>(null);
  isLoading = $state(true);
  error = $state<Error | null>(null);

  #abort: AbortController | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastMs = 0;
  /** The next list is shown whatever it holds; stays until one has come. */
  #mustShow = false;

  constructor(
    /** Asks the server for the rows of the filter as it is now; a long list's beginning is told before its end is here. */
    private readonly fetchIndex: (signal: AbortSignal, onBeginning: (rows: Uint32Array) => void) => Promise<Uint32Array<ArrayBuffer>>,
    /** What may happen to the list on screen: newer pictures on top, any change at all. */
    private readonly may: () => { grow: boolean; change: boolean },
  ) {}

  get newCount(): number {
    return this.pending ? countNew(this.ids, this.pending) : 0;
  }

  /** Loads the list of another filter. */
  open(): void {
    this.isLoading = true;
    this.reload();
  }

  /** Loads the list and shows it: the user asked for a change. */
  reload(): void {
    this.#mustShow = true;
    void this.#load();
  }

  /** Something changed on the server: looks again soon, the less often the longer looking takes. */
  touch(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#load();
    }, Math.max(300, this.#lastMs * 8));
  }

  showPending(): void {
    if (this.pending) this.ids = this.pending;
    this.pending = null;
  }

  /** Takes rows away at once (they were deleted); the server's own list follows. */
  drop(rows: Set<number>): void {
    this.ids = this.ids.filter((row) => !rows.has(row));
    this.pending = this.pending?.filter((row) => !rows.has(row)) ?? null;
  }

  close(): void {
    this.#abort?.abort();
    clearTimeout(this.#timer);
  }

  async #load(): Promise<void> {
    this.#abort?.abort();
    const abort = (this.#abort = new AbortController());
    const started = performance.now();
    try {
      const ids = await this.fetchIndex(abort.signal, (beginning) => {
        // Another list than the one on the screen: not what somebody is in the middle of.
        if (this.isLoading && !abort.signal.aborted) this.ids = beginning;
      });
      if (abort.signal.aborted) return;
      this.#lastMs = performance.now() - started;
      this.error = null;
      const may = this.may();
      if (this.#mustShow || (may.change && (may.grow || countNew(this.ids, ids) === 0))) {
        this.ids = ids;
        this.pending = null;
        this.#mustShow = false;
      } else this.pending = ids;
    } catch (error) {
      if (abort.signal.aborted) return;
      this.error = error instanceof Error ? error : new Error(String(error));
    } finally {
      if (!abort.signal.aborted) this.isLoading = false;
    }
  }
}

/** How many rows of the newer list stand above the first one that was already shown. */
export function countNew(shown: Uint32Array, newer: Uint32Array): number {
  if (!shown.length) return newer.length;
  const known = new Set(shown.subarray(0, 1000));
  const at = newer.findIndex((row) => known.has(row));
  return at < 0 ? Math.max(0, newer.length - shown.length) : at;
}
