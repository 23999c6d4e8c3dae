/** What keys mean while boxes are drawn. */
import type { Shortcut } from "../shortcuts.svelte";
import type { Annotator } from "./annotator.svelte";
import type { Size } from "./geometry";

export const BOX_KEYS: Shortcut[] = [
  { keys: "1", label: "Label of the selected or next box (1 to 9)", group: "Boxes" },
  { keys: "l", label: "Another label for the selected box", group: "Boxes" },
  { keys: "a", label: "Accept a model's box", group: "Boxes" },
  { keys: "Shift+a", label: "Accept all of them", group: "Boxes" },
  { keys: "Delete", label: "Delete the selected box", group: "Boxes" },
  { keys: "n", label: "Select the next box", group: "Boxes" },
  { keys: "Mod+z", label: "Undo, also on pictures before", group: "Boxes" },
  { keys: "Mod+Shift+z", label: "Redo", group: "Boxes" },
  { keys: "Shift+ArrowRight", label: "Move it by a pixel (with Alt: ten)", group: "Boxes" },
  { keys: "Mod+ArrowRight", label: "Resize it by a pixel (with Alt: ten)", group: "Boxes" },
  { keys: "r", label: "Repeat the boxes of the picture before", group: "Boxes" },
  { keys: "Mod+c", label: "Copy the box, or all of them", group: "Boxes" },
  { keys: "Mod+v", label: "Paste", group: "Boxes" },
  { keys: " ", label: "Hold and drag: move the picture", group: "Boxes" },
  { keys: "Escape", label: "Drop the box, the selection, then stop drawing", group: "Boxes" },
];

const WAY: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

interface Canvas {
  /** Drops a box half drawn; false if there is none. */
  cancel(): boolean;
  /** The picture as large as it is on the screen. */
  shownSize(): Size;
  pictureSize(): Size;
}

/** True when the key was meant for the boxes. */
export function boxKey(event: KeyboardEvent, annotator: Annotator, canvas: Canvas): boolean {
  const mod = event.ctrlKey || event.metaKey;
  const way = WAY[event.key];
  if (way && (event.shiftKey || mod)) {
    const step = pixel(canvas);
    const by = event.altKey ? 10 : 1;
    if (mod) annotator.stretch(way[0] * step.x * by, way[1] * step.y * by, step);
    else annotator.nudge(way[0] * step.x * by, way[1] * step.y * by);
    return true;
  }
  if (event.altKey) return false;
  return mod ? withMod(event, annotator) : plain(event, annotator, canvas);
}

function withMod(event: KeyboardEvent, annotator: Annotator): boolean {
  const key = event.key.toLowerCase();
  if (key === "z") event.shiftKey ? annotator.redo() : annotator.undo();
  else if (key === "y") annotator.redo();
  else if (key === "c") annotator.copy();
  else if (key === "v") annotator.paste();
  else return false;
  return true;
}

function plain(event: KeyboardEvent, annotator: Annotator, canvas: Canvas): boolean {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (/^[1-9]$/.test(key)) annotator.useKey(Number(key));
  else if (key === "l" || (key === "Enter" && annotator.selected && !(event.target as Element).closest("button, a"))) annotator.name();
  else if (key === "a") event.shiftKey ? annotator.acceptAll() : annotator.accept();
  // Without a selected box Delete does nothing here: it must never take the picture.
  else if (key === "Delete" || key === "Backspace") annotator.remove();
  else if (key === "n") annotator.selectNext(event.shiftKey ? -1 : 1);
  else if (key === "r") annotator.repeat();
  else if (key === "h") annotator.isHidden = !annotator.isHidden;
  else if (key === "Escape") {
    if (canvas.cancel()) return true;
    if (annotator.naming) annotator.naming = null;
    else if (annotator.selectedId) annotator.select(null);
    else annotator.isOn = false;
  } else return false;
  return true;
}

/** A pixel of the picture, or of the screen where that is larger: a step that can be seen. */
function pixel(canvas: Canvas): { x: number; y: number } {
  const [picture, shown] = [canvas.pictureSize(), canvas.shownSize()];
  return { x: Math.max(1 / picture.width, 1 / shown.width), y: Math.max(1 / picture.height, 1 / shown.height) };
}
