/** One camera's live pictures: a socket that asks for a frame only when the last one is on screen. */
import type { LiveHeader } from "../api/types";
import { liveAddress, parseFrame } from "./frame";

const STALLED_AFTER_MS = 2500;
const RETRY_MS = [300, 1000, 2000, 4000];

export type Watch = { camera: string; vision: string | null; max_fps: number };
export type LiveError = { code: string; message: string; hint: string };
export type FeedState = "connecting" | "live" | "stalled" | "lost";

export class Feed {
  state = $state<FeedState>("connecting");
  header = $state.raw<LiveHeader | null>(null);
  error = $state.raw<LiveError | null>(null);
  fps = $state(0);
  /** Capture to screen; null when the machine's clock and this browser's differ too much to tell. */
  latencyMs = $state<number | null>(null);
  lastFrameAt = $state(0);

  #part: string;
  #watch: Watch;
  #draw: (picture: ImageBitmap, header: LiveHeader) => void;
  #socket: WebSocket | null = null;
  #attempt = 0;
  #retry = 0;
  #tick: number;
  #stopped = false;
  #times: number[] = [];
  #picture: Blob | null = null;

  constructor(part: string, watch: Watch, draw: (picture: ImageBitmap, header: LiveHeader) => void) {
    this.#part = part;
    this.#watch = watch;
    this.#draw = draw;
    this.#connect();
    this.#tick = window.setInterval(() => this.#measure(), 500);
    document.addEventListener("visibilitychange", this.#visible);
  }

  /** Another vision service or rate on the same socket: the picture does not blink. */
  watch(watch: Watch) {
    this.#watch = watch;
    this.#send({ watch });
  }

  /** The picture on screen as the camera sent it. */
  get snapshot(): Blob | null {
    return this.#picture;
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#retry);
    clearInterval(this.#tick);
    document.removeEventListener("visibilitychange", this.#visible);
    this.#socket?.close();
  }

  #send(message: unknown) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  // A hidden page takes no pictures from the machine.
  #visible = () => {
    if (document.visibilityState === "hidden") this.#socket?.close();
    else if (!this.#stopped && this.#socket?.readyState !== WebSocket.OPEN) this.#reconnect(0);
  };

  #connect() {
    const socket = new WebSocket(liveAddress(this.#part));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      this.#send({ watch: this.#watch }); // grants two frames: enough to hide a round trip, too few to queue
    };
    socket.onmessage = (message: MessageEvent<ArrayBuffer | string>) => void this.#receive(socket, message.data);
    socket.onclose = () => {
      if (this.#stopped || this.#socket !== socket) return;
      this.state = "lost";
      if (document.visibilityState !== "hidden") this.#reconnect(RETRY_MS[Math.min(this.#attempt++, RETRY_MS.length - 1)]!);
    };
  }

  #reconnect(wait: number) {
    clearTimeout(this.#retry);
    this.#retry = window.setTimeout(() => !this.#stopped && this.#connect(), wait);
  }

  async #receive(socket: WebSocket, data: ArrayBuffer | string) {
    if (typeof data === "string") {
      const message = JSON.parse(data) as { error?: LiveError };
      if (message.error) this.error = message.error;
      return;
    }
    try {
      const { header, picture } = parseFrame(data);
      const blob = new Blob([picture], { type: header.mime_type || "image/jpeg" });
      const bitmap = await createImageBitmap(blob);
      if (this.#stopped || this.#socket !== socket) return bitmap.close();
      this.#show(bitmap, header, blob);
    } catch (error) {
      // One broken picture is skipped; the feed goes on.
      this.error = { code: "broken_picture", message: "A picture could not be shown", hint: error instanceof Error ? error.message : "" };
    }
    this.#send({ credit: 1 });
  }

  #show(bitmap: ImageBitmap, header: LiveHeader, blob: Blob) {
    this.#draw(bitmap, header);
    bitmap.close();
    const now = Date.now();
    this.#picture = blob;
    this.#attempt = 0;
    this.#times.push(now);
    this.header = header;
    this.error = null;
    this.state = "live";
    this.lastFrameAt = now;
  }

  #measure() {
    const now = Date.now();
    this.#times = this.#times.filter((t) => now - t < 2000);
    this.fps = this.#times.length / 2;
    if (this.header) {
      const latency = this.lastFrameAt - new Date(this.header.captured_at).getTime();
      this.latencyMs = latency >= 0 && latency < 10_000 ? latency : null;
    }
    if (this.state === "live" && now - this.lastFrameAt > STALLED_AFTER_MS) this.state = "stalled";
  }
}
