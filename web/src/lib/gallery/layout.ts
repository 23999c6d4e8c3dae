/**
 * Where the cells of a virtual grid lie. Pure arithmetic on a uniform grid: cell i is at column i mod columns.
 *
 * Browsers cap the height of a scrolled box (16,777,216 device pixels in Firefox and on 2× screens), a million
 * pictures need more. Above MAX_SCROLL_PX the box is shorter than the grid and `Scroller` keeps the two in step.
 */

export const MAX_SCROLL_PX = 6_000_000;
export const GAP_PX = 4;

export interface Layout {
  columns: number;
  rows: number;
  /** Side lengths of a cell without its gap. */
  cellWidth: number;
  cellHeight: number;
  rowPitch: number;
  columnPitch: number;
  /** Height of the whole grid, which may exceed what a browser can scroll. */
  height: number;
  /** Height of the scrolled box. */
  scrollHeight: number;
}

export function layOut(count: number, width: number, wantedCell: number, padBottom = 0, aspect = 4 / 3): Layout {
  const columns = Math.max(1, Math.round((width + GAP_PX) / (wantedCell + GAP_PX)));
  const columnPitch = (width + GAP_PX) / columns;
  const cellWidth = columnPitch - GAP_PX;
  const cellHeight = Math.round(cellWidth / aspect);
  const rowPitch = cellHeight + GAP_PX;
  const rows = Math.ceil(count / columns);
  const height = Math.max(0, rows * rowPitch - GAP_PX) + padBottom;
  return { columns, rows, cellWidth, cellHeight, rowPitch, columnPitch, height, scrollHeight: Math.min(height, MAX_SCROLL_PX) };
}

/** First and one-past-last index of the cells that a window onto the grid needs, with some rows to spare. */
export function visibleRange(layout: Layout, count: number, top: number, viewHeight: number, spareRows: number): [number, number] {
  const first = Math.max(0, Math.floor(top / layout.rowPitch) - spareRows);
  const last = Math.ceil((top + viewHeight) / layout.rowPitch) + spareRows;
  return [Math.min(count, first * layout.columns), Math.min(count, last * layout.columns)];
}

export function cellTop(layout: Layout, index: number): number {
  return Math.floor(index / layout.columns) * layout.rowPitch;
}

/** The cell under a point of the grid, clamped to the grid's cells; -1 for an empty grid. */
export function cellAt(layout: Layout, count: number, x: number, y: number): number {
  if (!count) return -1;
  const column = Math.min(layout.columns - 1, Math.max(0, Math.floor(x / layout.columnPitch)));
  const row = Math.min(layout.rows - 1, Math.max(0, Math.floor(y / layout.rowPitch)));
  return Math.min(count - 1, row * layout.columns + column);
}

/** How far to move so that the cell is wholly in view: the new top, or the old one when it already is. */
export function revealTop(layout: Layout, index: number, top: number, viewHeight: number): number {
  const y = cellTop(layout, index);
  if (y < top) return y;
  if (y + layout.cellHeight > top + viewHeight) return y + layout.cellHeight - viewHeight;
  return top;
}

/**
 * Maps the box's scroll position to the grid's. Small steps (wheel, touch) move the grid by exactly as many pixels;
 * a jump (dragging the scroll bar) goes to the same fraction of the whole. The difference between the two positions,
 * `shift`, is where the cells are drawn, so the browser's own smooth scrolling stays smooth.
 */
export class Scroller {
  top = 0;
  shift = 0;
  #last = 0;
  #viewHeight = 0;
  #layout: Layout | null = null;

  resize(layout: Layout, viewHeight: number): void {
    this.#layout = layout;
    this.#viewHeight = viewHeight;
    this.top = Math.min(this.top, this.#maxTop);
  }

  /** The box was scrolled. Returns the scroll position that it must be given instead, or null when it is right. */
  scrolled(scrollTop: number): number | null {
    const step = scrollTop - this.#last;
    this.#last = scrollTop;
    if (!this.isScaled) {
      this.top = scrollTop;
      this.shift = 0;
      return null;
    }
    if (Math.abs(step) > 2 * this.#viewHeight) {
      this.top = (scrollTop / this.#maxScroll) * this.#maxTop;
      this.shift = scrollTop - this.top;
      return null;
    }
    this.top = Math.min(this.#maxTop, Math.max(0, this.top + step));
    this.shift = scrollTop - this.top;
    const atEdge = scrollTop <= 0 || scrollTop >= this.#maxScroll - 1;
    const isThere = this.top <= 0 || this.top >= this.#maxTop;
    return atEdge !== isThere && (atEdge || isThere) ? this.jump(this.top) : null;
  }

  /** Puts the grid at `top`; returns the box's scroll position for it. */
  jump(top: number): number {
    this.top = Math.min(this.#maxTop, Math.max(0, top));
    this.#last = this.isScaled && this.#maxTop > 0 ? Math.round((this.top / this.#maxTop) * this.#maxScroll) : this.top;
    this.shift = this.#last - this.top;
    return this.#last;
  }

  get isScaled(): boolean {
    return !!this.#layout && this.#layout.height > this.#layout.scrollHeight;
  }

  get #maxTop(): number {
    return Math.max(0, (this.#layout?.height ?? 0) - this.#viewHeight);
  }

  get #maxScroll(): number {
    return Math.max(1, (this.#layout?.scrollHeight ?? 0) - this.#viewHeight);
  }
}
