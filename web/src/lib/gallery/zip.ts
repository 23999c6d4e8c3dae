/** Many pictures as one download: a zip without compression (pictures do not shrink), made in the browser. */

const table = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

export function crc32(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) c = table[(c ^ bytes[i]!) & 0xff]! ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

interface Entry {
  name: Uint8Array<ArrayBuffer>;
  crc: number;
  size: number;
  offset: number;
  dosTime: number;
}

export class Zip {
  #parts: BlobPart[] = [];
  #entries: Entry[] = [];
  #offset = 0;
  #names = new Set<string>();

  /** Bytes so far; a zip of this plain kind ends at 4 GiB. */
  get size(): number {
    return this.#offset;
  }

  add(name: string, bytes: Uint8Array<ArrayBuffer>, when: Date): void {
    const entry: Entry = { name: new TextEncoder().encode(this.#unique(name)), crc: crc32(bytes), size: bytes.length, offset: this.#offset, dosTime: dosTime(when) };
    const header = new DataView(new ArrayBuffer(30));
    header.setUint32(0, 0x04034b50, true);
    this.#common(header, 4, entry);
    this.#push(new Uint8Array(header.buffer), entry.name, bytes);
    this.#entries.push(entry);
  }

  finish(): Blob {
    const start = this.#offset;
    for (const entry of this.#entries) {
      const header = new DataView(new ArrayBuffer(46));
      header.setUint32(0, 0x02014b50, true);
      header.setUint16(4, 20, true);
      this.#common(header, 6, entry);
      header.setUint32(42, entry.offset, true);
      this.#push(new Uint8Array(header.buffer), entry.name);
    }
    const end = new DataView(new ArrayBuffer(22));
    end.setUint32(0, 0x06054b50, true);
    end.setUint16(8, this.#entries.length, true);
    end.setUint16(10, this.#entries.length, true);
    end.setUint32(12, this.#offset - start, true);
    end.setUint32(16, start, true);
    this.#push(new Uint8Array(end.buffer));
    return new Blob(this.#parts, { type: "application/zip" });
  }

  /** The fields that local and central headers share: version, UTF-8 flag, stored, time, checksum, sizes, name. */
  #common(header: DataView, at: number, entry: Entry): void {
    header.setUint16(at, 20, true);
    header.setUint16(at + 2, 0x0800, true);
    header.setUint32(at + 6, entry.dosTime, true);
    header.setUint32(at + 10, entry.crc, true);
    header.setUint32(at + 14, entry.size, true);
    header.setUint32(at + 18, entry.size, true);
    header.setUint16(at + 22, entry.name.length, true);
  }

  #push(...parts: Uint8Array<ArrayBuffer>[]): void {
    for (const part of parts) {
      this.#parts.push(part);
      this.#offset += part.length;
    }
  }

  #unique(name: string): string {
    const dot = name.lastIndexOf(".");
    const [stem, ext] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
    let unique = name;
    for (let n = 2; this.#names.has(unique); n++) unique = `${stem}-${n}${ext}`;
    this.#names.add(unique);
    return unique;
  }
}

function dosTime(when: Date): number {
  const date = (Math.max(0, when.getFullYear() - 1980) << 9) | ((when.getMonth() + 1) << 5) | when.getDate();
  const time = (when.getHours() << 11) | (when.getMinutes() << 5) | (when.getSeconds() >> 1);
  return ((date << 16) | time) >>> 0;
}
