/** Where in the query an error message points to: [from, to) in characters, or null where it names no place. */
export function placeOf(message: string, text: string): [number, number] | null {
  const said = /\(line (\d+), column (\d+)\)/.exec(message);
  if (said) {
    const before = text.split("\n").slice(0, Number(said[1]) - 1);
    const start = Math.min(before.reduce((sum, line) => sum + line.length + 1, 0) + Number(said[2]) - 1, text.length);
    const word = /^(\w+|\s*\S)/.exec(text.slice(start))?.[0] ?? "";
    // Behind the end: what is missing is missing after the last character.
    return word ? [start, start + word.length] : [Math.max(0, start - 1), start];
  }
  // DuckDB names what it does not know in quotes, and what there is instead behind it.
  for (const [, name] of message.matchAll(/(?:column|function|Table|name|Type)[^"]*"([^"]+)"/gi)) {
    const at = text.toLowerCase().indexOf(name!.toLowerCase());
    if (at >= 0) return [at, at + name!.length];
  }
  return null;
}
