/** Driving a base: what is held down becomes a direction, sent again and again, because silence means stop. */
import { liveAddress } from "./frame";
import { power, type Direction } from "./power";

/** The app stops the base after 600 ms of silence (docs/architecture.md, Live WebSocket). */
const RESEND_MS = 200;

export class Drive {
  state = $state<"connecting" | "ready" | "lost">("connecting");
  held = $state.raw<ReadonlySet<Direction>>(new Set());
  error = $state.raw<{ message: string; hint: string } | null>(null);
  speed = $state(0.6);
  #part: string;
  #base: string;
  #socket: WebSocket | null = null;
  #timer = 0;
  #retry = 0;
  #closed = false;

  constructor(part: string, base: string, speed: number) {
    this.#part = part;
    this.#base = base;
    this.speed = speed;
    this.#connect();
    addEventListener("blur", this.release);
    document.addEventListener("visibilitychange", this.release);
  }

  press(direction: Direction) {
    if (this.held.has(direction)) return;
    this.held = new Set([...this.held, direction]);
    this.#go();
  }
  lift(direction: Direction) {
    if (!this.held.has(direction)) return;
    this.held = new Set([...this.held].filter((d) => d !== direction));
    this.#go();
  }
  release = () => {
    if (!this.held.size) return;
    this.held = new Set();
    this.#go();
  };
  stop() {
    this.held = new Set();
    clearInterval(this.#timer);
    this.#send({ stop: { base: this.#base } });
  }
  close() {
    this.#closed = true;
    if (this.held.size) this.stop();
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    removeEventListener("blur", this.release);
    document.removeEventListener("visibilitychange", this.release);
    this.#socket?.close();
  }

  #go() {
    clearInterval(this.#timer);
    if (!this.held.size) return this.#send({ stop: { base: this.#base } });
    const send = () => this.#send({ drive: { base: this.#base, ...power(this.held, this.speed) } });
    send();
    this.#timer = window.setInterval(send, RESEND_MS);
  }

  #send(message: unknown) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #connect() {
    const socket = new WebSocket(liveAddress(this.#part));
    this.#socket = socket;
    socket.onopen = () => {
      this.state = "ready";
      this.error = null;
    };
    socket.onmessage = (message: MessageEvent<unknown>) => {
      if (typeof message.data !== "string") return;
      const data = JSON.parse(message.data) as { error?: { message: string; hint: string } };
      this.error = data.error ?? null;
    };
    socket.onclose = () => {
      if (this.#closed || this.#socket !== socket) return;
      this.state = "lost";
      this.held = new Set();
      clearInterval(this.#timer);
      this.#retry = window.setTimeout(() => this.#connect(), 1500);
    };
  }
}
