/** Small choices kept in this browser. A blocked or full storage is the same as nothing kept. */
export function remembered<T>(key: string, otherwise: T): T {
  try {
    const text = localStorage.getItem(`gleaner.${key}`);
    return text === null ? otherwise : (JSON.parse(text) as T);
  } catch {
    return otherwise;
  }
}

export function remember(key: string, value: unknown): void {
  try {
    localStorage.setItem(`gleaner.${key}`, JSON.stringify(value));
  } catch {
    /* nothing depends on it */
  }
}
