/** The live socket's binary messages: `u32 LE header length | JSON | picture`. */
import type { LiveHeader } from "../api/types";

const decoder = new TextDecoder();

export function parseFrame(data: ArrayBuffer): { header: LiveHeader; picture: Uint8Array<ArrayBuffer> } {
  if (data.byteLength < 4) throw new RangeError(`a live frame has at least 4 bytes, got ${data.byteLength}`);
  const length = new DataView(data).getUint32(0, true);
  if (4 + length > data.byteLength) throw new RangeError(`a live frame's header says ${length} bytes, only ${data.byteLength - 4} follow`);
  return { header: JSON.parse(decoder.decode(new Uint8Array(data, 4, length))) as LiveHeader, picture: new Uint8Array(data, 4 + length) };
}

export const liveAddress = (part: string) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/parts/${encodeURIComponent(part)}/live`;
