/** The keyboard map: pages register what they understand, `?` shows it all. */
import { untrack } from "svelte";

export type Shortcut = {
  /** As shown and matched: "?", "g d", "Mod+s", "Escape", "ArrowLeft". Mod is Ctrl, or Cmd on a Mac. */
  keys: string;
  label: string;
  group?: string;
  run?: (event: KeyboardEvent) => void;
  /** Also while a text field has the focus (Mod combinations always do). */
  inFields?: boolean;
};

const mac = /Mac|iPhone|iPad/.test(navigator.platform);
const SEQUENCE_MS = 900;

export function isTyping(target: EventTarget | null): boolean {
  return target instanceof Element && !!target.closest('input:not([type="range"]):not([type="checkbox"]), textarea, select, [contenteditable="true"], [role="combobox"]');
}

/** Keys as this user's keyboard names them, for `<Kbd>`. */
export function shownKeys(keys: string): string[] {
  const names: Record<string, string> = { Mod: mac ? "⌘" : "Ctrl", Shift: "⇧", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", " ": "Space" };
  return keys.split(/[ +](?=.)/).map((k) => names[k] ?? (k.length === 1 ? k.toUpperCase() : k));
}

function named(event: KeyboardEvent): string {
  const mod = event.ctrlKey || event.metaKey ? "Mod+" : "";
  const shift = event.shiftKey && event.key.length > 1 ? "Shift+" : "";
  return mod + shift + (event.key.length === 1 ? event.key.toLowerCase() : event.key);
}

class Shortcuts {
  helpOpen = $state(false);
  all = $state.raw<Shortcut[]>([]);
  #prefix = "";
  #timer = 0;

  /** Registers while a page is shown: `$effect(() => shortcuts.add([...]))`. */
  add(list: Shortcut[]): () => void {
    this.all = [...untrack(() => this.all), ...list]; // called in effects, which must not depend on the map they change
    return () => (this.all = this.all.filter((s) => !list.includes(s)));
  }

  handle(event: KeyboardEvent) {
    if (event.defaultPrevented || event.isComposing || ["Shift", "Control", "Meta", "Alt"].includes(event.key) || event.altKey) return;
    const typing = isTyping(event.target);
    const dialog = document.querySelector("[role=dialog], [role=alertdialog]");
    const name = named(event);
    const sequence = this.#prefix ? `${this.#prefix} ${name}` : name;
    // The newest registration wins: a page overrides the frame.
    const usable = this.all.filter((s) => s.run && (!typing || s.inFields || s.keys.startsWith("Mod+")) && (!dialog || s.inFields));
    const found = usable.findLast((s) => s.keys === sequence) ?? usable.findLast((s) => s.keys === name);
    clearTimeout(this.#timer);
    this.#prefix = "";
    if (found) {
      event.preventDefault();
      found.run?.(event);
    } else if (!typing && this.all.some((s) => s.keys.startsWith(`${name} `))) {
      this.#prefix = name;
      this.#timer = window.setTimeout(() => (this.#prefix = ""), SEQUENCE_MS);
    }
  }
}

export const shortcuts = new Shortcuts();
