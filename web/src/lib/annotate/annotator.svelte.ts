/** The person at the boxes: what is selected, which label comes next, and every change with the way back. */
import type { Box, Facet, Item } from "../api/types";
import { moved, overlap, resized, type Edges, type Point } from "./geometry";
import { History, type Step } from "./history";
import { keepLabels, keptLabels, onDigits, withLabel } from "./labels";
import { outbox } from "./outbox.svelte";

/** Boxes of one label that cover each other this much are one box. */
const SAME_BOX = 0.9;
/** They outlive one picture and one visit of the viewer: a step back may lead to a picture seen before. */
const history = new History();
let copied: Omit<Box, "id">[] = [];
let wasOn = false;

export interface Surroundings {
  item: () => Item | undefined;
  /** Labels in use: those of the list on the page first, then all others. */
  known: () => Facet[];
  /** The dataset whose labels are on the keys; empty outside of datasets. */
  scope: string;
  /** Shows the picture of this row. False when it is not in the list. */
  show: (row: number) => boolean;
}

export class Annotator {
  selectedId = $state<string | null>(null);
  /** It was clicked: dragging inside moves it. A box just drawn is selected but not held, so that the next one can be drawn over it. */
  isHeld = $state(false);
  isHidden = $state(false);
  /** The box that gets its label now: a new one has no id yet. */
  naming = $state.raw<{ boxId: string | null; edges: Edges } | null>(null);
  #isOn = $state(wasOn);
  #chosen = $state.raw<string[]>([]);
  #last = $state("");
  /** Counts changes of the history, which is no state of its own. */
  #turns = $state(0);
  #before = $state.raw<{ row: number; boxes: Box[] } | null>(null);
  #shown: { row: number; boxes: Box[] } | null = null;

  constructor(private readonly around: Surroundings) {
    const kept = keptLabels(around.scope);
    this.#chosen = kept.labels;
    this.#last = kept.last;
  }

  readonly boxes = $derived.by(() => {
    const item = this.around.item();
    return item ? outbox.boxesOf(item.row, item.boxes) : [];
  });
  /** As they are listed and walked through: by label, from left to right. */
  readonly listed = $derived.by(() => [...this.boxes].sort((a, b) => a.label.localeCompare(b.label) || a.x_min - b.x_min || (a.id < b.id ? -1 : 1)));
  readonly selected = $derived.by(() => this.boxes.find((box) => box.id === this.selectedId) ?? null);
  /** Boxes that a model drew and nobody has looked at, the surest first. */
  readonly suggested = $derived.by(() => this.boxes.filter(isSuggestion).sort((a, b) => b.confidence! - a.confidence!));
  readonly onKeys = $derived.by(() => onDigits(this.#chosen, this.around.known().map((facet) => facet.value)));
  readonly canUndo = $derived.by(() => this.#turns >= 0 && history.canUndo);
  readonly canRedo = $derived.by(() => this.#turns >= 0 && history.canRedo);
  readonly canRepeat = $derived.by(() => !!this.#before?.boxes.length);

  get isOn(): boolean {
    return this.#isOn;
  }
  set isOn(value: boolean) {
    wasOn = this.#isOn = value;
    this.isHidden = false;
    this.select(null);
  }
  /** The label that the next box gets; empty before the first. */
  get label(): string {
    return this.#last;
  }

  /** Another picture is shown now. */
  turned(row: number | undefined): void {
    if (this.#shown?.row === row) return;
    if (this.#shown) this.#before = this.#shown;
    this.#shown = row === undefined ? null : { row, boxes: [] };
    if (!this.boxes.some((box) => box.id === this.selectedId)) this.select(null);
    this.naming = null;
  }
  /** Keeps what the picture shows, for repeating it on the next. */
  seen(row: number, boxes: Box[]): void {
    if (this.#shown?.row === row) this.#shown.boxes = boxes;
  }

  select(id: string | null, isHeld = false): void {
    this.selectedId = id;
    this.isHeld = isHeld && id !== null;
    if (this.naming && this.naming.boxId !== id) this.naming = null;
  }
  selectNext(by: 1 | -1): void {
    const boxes = this.listed;
    if (!boxes.length) return;
    const at = boxes.findIndex((box) => box.id === this.selectedId);
    this.select(boxes[(at < 0 ? (by > 0 ? 0 : boxes.length - 1) : at + by + boxes.length) % boxes.length]!.id, true);
  }

  draw(edges: Edges): void {
    this.select(null);
    if (this.#last) this.#create(edges, this.#last);
    else this.naming = { boxId: null, edges };
  }

  /** The label for the selected box or, with none selected, for the next ones. */
  use(label: string): void {
    const name = label.trim();
    if (!name) return;
    const { naming } = this;
    this.naming = null;
    this.#remember(name);
    if (naming && naming.boxId === null) return this.#create(naming.edges, name);
    const box = this.boxes.find((one) => one.id === (naming?.boxId ?? this.selectedId));
    if (box && (box.label !== name || isSuggestion(box))) this.#change(box, { label: name });
  }
  useKey(digit: number): boolean {
    const label = this.onKeys[digit - 1];
    if (label) this.use(label);
    return !!label;
  }
  /** Takes a label off the keys; boxes keep it. */
  forget(label: string): void {
    this.#chosen = this.onKeys.filter((one) => one !== label);
    if (this.#last === label) this.#last = "";
    this.#keep();
  }
  name(): void {
    const box = this.selected;
    if (box) this.naming = { boxId: box.id, edges: box };
  }

  reshape(id: string, edges: Edges): void {
    const box = this.boxes.find((one) => one.id === id);
    if (box) this.#change(box, edges);
  }
  nudge(dx: number, dy: number): void {
    const box = this.selected;
    if (box) this.#change(box, moved(box, dx, dy), "nudge");
  }
  /** Moves the lower right corner. */
  stretch(dx: number, dy: number, least: Point): void {
    const box = this.selected;
    if (box) this.#change(box, resized(box, "se", { x: box.x_max + dx, y: box.y_max + dy }, least), "stretch");
  }

  remove(id = this.selectedId): void {
    const box = this.boxes.find((one) => one.id === id);
    if (!box) return;
    if (id === this.selectedId) this.select(null);
    this.#do([this.#on(box, null)]);
  }

  /** Makes a model's box one that a person has looked at; without an id the selected one or else the surest. */
  accept(id: string | null = null): void {
    const box = this.boxes.find((one) => one.id === (id ?? this.selectedId) && isSuggestion(one)) ?? (id ? undefined : this.suggested[0]);
    if (!box) return;
    this.#change(box, {});
    if (!id) this.select(this.suggested[0]?.id ?? null, true);
  }
  acceptAll(): void {
    this.#do(this.suggested.map((box) => this.#on(box, { ...box, confidence: null })));
  }
  dismissAll(): void {
    this.#do(this.suggested.map((box) => this.#on(box, null)));
  }

  copy(): void {
    const from = this.selected ? [this.selected] : this.boxes;
    copied = from.map(({ id: _, ...box }) => ({ ...box, confidence: null }));
  }
  paste(): void {
    this.#add(copied);
  }
  /** The boxes of the picture seen before, onto this one: for a scene that stands still. */
  repeat(): void {
    if (this.#before) this.#add(this.#before.boxes);
  }

  undo(): void {
    this.#replay(history.undo());
  }
  redo(): void {
    this.#replay(history.redo());
  }

  #replay(step: Step | null): void {
    this.#turns++;
    if (!step?.length) return;
    this.naming = null;
    for (const { row, itemId, before, after } of step) outbox.want(row, itemId, (after ?? before)!.id, after);
    const first = step[0]!;
    if (first.row !== this.around.item()?.row) this.around.show(first.row);
    this.select(step.length === 1 ? (first.after?.id ?? null) : null, true);
  }

  #create(edges: Edges, label: string): void {
    const { x_min, y_min, x_max, y_max } = edges;
    const box: Box = { id: newId(), label, x_min, y_min, x_max, y_max, confidence: null };
    this.#do([this.#on(null, box)]);
    this.#remember(label);
    this.select(box.id);
  }

  #add(boxes: readonly Omit<Box, "id">[]): void {
    const here = this.boxes;
    const fresh = boxes.filter((box) => !here.some((one) => one.label === box.label && overlap(one, box) > SAME_BOX));
    this.#do(fresh.map((box) => this.#on(null, { ...box, id: newId(), confidence: null })));
  }

  #change(box: Box, change: Partial<Box>, kind = ""): void {
    const { label = box.label, x_min = box.x_min, y_min = box.y_min, x_max = box.x_max, y_max = box.y_max } = change;
    this.#do([this.#on(box, { id: box.id, label, x_min, y_min, x_max, y_max, confidence: null })], kind);
  }

  #on(before: Box | null, after: Box | null) {
    const item = this.around.item()!;
    return { row: item.row, itemId: item.id, before, after };
  }

  #do(step: Step, kind = ""): void {
    if (!step.length) return;
    history.add(step, kind, performance.now());
    this.#turns++;
    for (const { row, itemId, before, after } of step) outbox.want(row, itemId, (after ?? before)!.id, after);
  }

  #remember(label: string): void {
    this.#last = label;
    this.#chosen = withLabel(this.onKeys, label);
    this.#keep();
  }
  #keep(): void {
    keepLabels(this.around.scope, { labels: this.#chosen, last: this.#last });
  }
}

/** For the next person who logs in. */
export function forgetHistory(): void {
  history.clear();
  copied = [];
}

export const isSuggestion = (box: Pick<Box, "confidence">): boolean => box.confidence !== null;

/** A UUID also where the page came without TLS, as from a machine on the local network: `crypto.randomUUID` is missing there. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
