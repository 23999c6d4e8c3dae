/** Addresses of pages: patterns with named, optionally limited, params. */

export type Params = Record<string, string>;

/** `/machines/:id/:tab(configure|control)` → a matcher; `(a|b)` limits what a param may be. */
export function compile(pattern: string): (path: string) => Params | null {
  const names: string[] = [];
  const source = pattern.replace(/:(\w+)(\([^)]*\))?/g, (_, name: string, choice?: string) => {
    names.push(name);
    return choice ?? "([^/]+)";
  });
  const expression = new RegExp(`^${source}/?$`);
  return (path) => {
    const found = expression.exec(path);
    return found && Object.fromEntries(names.map((name, i) => [name, decoded(found[i + 1] ?? "")]));
  };
}

/** An address typed by hand may hold a lone `%`: it is then taken as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
