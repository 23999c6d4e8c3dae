/** Keys and directions for driving a base. */

export type Direction = "forward" | "back" | "left" | "right";
export const KEYS: Record<string, Direction> = { w: "forward", arrowup: "forward", s: "back", arrowdown: "back", a: "left", arrowleft: "left", d: "right", arrowright: "right" };

/** Held directions at a speed of 0–1 → linear and angular power; left turns are positive, as in Viam's base API. */
export function power(held: ReadonlySet<Direction>, speed: number): { linear: number; angular: number } {
  const linear = Number(held.has("forward")) - Number(held.has("back"));
  const angular = Number(held.has("left")) - Number(held.has("right"));
  return { linear: linear * speed, angular: angular * speed };
}
