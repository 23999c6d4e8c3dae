/** Boxes as numbers: 0–1 of the picture as it is shown, x to the right, y down. Nothing here knows of the page. */
export interface Edges {
  x_min: number;
  y_min: number;
  x_max: number;
  y_max: number;
}
export interface Point {
  x: number;
  y: number;
}
export interface Size {
  width: number;
  height: number;
}
/** The side or corner that is pulled, by its compass point. */
export type Handle = "nw" | "n" | "ne" | "e" | "se" | "s" | "sw" | "w";
export const HANDLES: readonly Handle[] = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

/** Under this many pixels of the screen a drag was meant as a click. */
export const CLICK_PX = 4;

const inside = (value: number) => Math.min(1, Math.max(0, value));

/** The box between two corners, in any order, cut at the picture's edge. */
export function between(a: Point, b: Point): Edges {
  return {
    x_min: inside(Math.min(a.x, b.x)),
    y_min: inside(Math.min(a.y, b.y)),
    x_max: inside(Math.max(a.x, b.x)),
    y_max: inside(Math.max(a.y, b.y)),
  };
}

/** Keeps its size: at the picture's edge it stops. */
export function moved(box: Edges, dx: number, dy: number): Edges {
  const x = Math.min(1 - box.x_max, Math.max(-box.x_min, dx));
  const y = Math.min(1 - box.y_max, Math.max(-box.y_min, dy));
  return { x_min: inside(box.x_min + x), y_min: inside(box.y_min + y), x_max: inside(box.x_max + x), y_max: inside(box.y_max + y) };
}

/** Pulls a side or corner to a point; pulled past the other side, the box turns over. `least` is the smallest size. */
export function resized(box: Edges, handle: Handle, to: Point, least: Point): Edges {
  const [x_min, x_max] = pulled(box.x_min, box.x_max, handle.includes("w") ? -1 : handle.includes("e") ? 1 : 0, to.x, least.x);
  const [y_min, y_max] = pulled(box.y_min, box.y_max, handle.includes("n") ? -1 : handle.includes("s") ? 1 : 0, to.y, least.y);
  return { x_min, y_min, x_max, y_max };
}

function pulled(low: number, high: number, side: -1 | 0 | 1, to: number, least: number): [number, number] {
  if (side === 0) return [low, high];
  const fixed = side < 0 ? high : low;
  let free = inside(to);
  if (Math.abs(free - fixed) < least) free = fixed + (free < fixed || (free === fixed && side < 0) ? -least : least);
  if (free > 1) free = fixed - least;
  if (free < 0) free = fixed + least;
  return [Math.min(fixed, free), Math.max(fixed, free)];
}

export const area = (box: Edges) => (box.x_max - box.x_min) * (box.y_max - box.y_min);
export const contains = (box: Edges, { x, y }: Point) => x >= box.x_min && x <= box.x_max && y >= box.y_min && y <= box.y_max;

/** The boxes under a point, the smallest first: a box inside a box can be reached, and the next click reaches the outer one. */
export function under<B extends Edges>(boxes: readonly B[], point: Point): B[] {
  return boxes.filter((box) => contains(box, point)).sort((a, b) => area(a) - area(b));
}

/** Where a handle is. */
export function handlePoint(box: Edges, handle: Handle): Point {
  return {
    x: handle.includes("w") ? box.x_min : handle.includes("e") ? box.x_max : (box.x_min + box.x_max) / 2,
    y: handle.includes("n") ? box.y_min : handle.includes("s") ? box.y_max : (box.y_min + box.y_max) / 2,
  };
}

/** The handle within reach of a point, corners first; along the whole side where no handle is near. */
export function handleAt(box: Edges, point: Point, reach: Point): Handle | null {
  if (point.x < box.x_min - reach.x || point.x > box.x_max + reach.x || point.y < box.y_min - reach.y || point.y > box.y_max + reach.y) return null;
  // In a small box the middle belongs to moving.
  const rx = Math.min(reach.x, (box.x_max - box.x_min) / 4);
  const ry = Math.min(reach.y, (box.y_max - box.y_min) / 4);
  const west = point.x <= box.x_min + rx;
  const east = point.x >= box.x_max - rx;
  const north = point.y <= box.y_min + ry;
  const south = point.y >= box.y_max - ry;
  return ((north ? "n" : south ? "s" : "") + (west ? "w" : east ? "e" : "")) as Handle || null;
}

export function isTiny(box: Edges, shown: Size): boolean {
  return (box.x_max - box.x_min) * shown.width < CLICK_PX || (box.y_max - box.y_min) * shown.height < CLICK_PX;
}

/** Share of the area of both that both cover. */
export function overlap(a: Edges, b: Edges): number {
  const width = Math.min(a.x_max, b.x_max) - Math.max(a.x_min, b.x_min);
  const height = Math.min(a.y_max, b.y_max) - Math.max(a.y_min, b.y_min);
  if (width <= 0 || height <= 0) return 0;
  return (width * height) / (area(a) + area(b) - width * height);
}
