/** Where a path such as `components[0].attributes.path` stands in a JSON text; the nearest parent when it is absent. */

type Step = string | number;
const steps = (path: string): Step[] => [...path.matchAll(/([^.[\]]+)|\[(\d+)\]/g)].map((m) => (m[2] !== undefined ? Number(m[2]) : m[1]!));

/** `[from, to)` of the key (or the value, inside lists). */
export function positionOf(text: string, path: string): [number, number] {
  let at = 0;
  let best: [number, number] = [0, Math.min(1, text.length)];
  const blank = () => {
    while (at < text.length && /\s/.test(text[at]!)) at++;
  };
  const string = (): string => {
    const from = at++;
    while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    at++;
    return text.slice(from + 1, at - 1);
  };
  const skip = () => {
    blank();
    const c = text[at];
    if (c === '"') return void string();
    if (c !== "{" && c !== "[") {
      while (at < text.length && !/[,\]}\s]/.test(text[at]!)) at++;
      return;
    }
    let depth = 0;
    do {
      const d = text[at];
      if (d === '"') {
        string();
        continue;
      }
      if (d === "{" || d === "[") depth++;
      if (d === "}" || d === "]") depth--;
      at++;
    } while (depth && at < text.length);
  };
  const enter = (step: Step): boolean => {
    blank();
    const isList = typeof step === "number";
    if (text[at] !== (isList ? "[" : "{")) return false;
    at++;
    for (let i = 0; at < text.length; i++) {
      blank();
      if (text[at] === "]" || text[at] === "}") return false;
      const from = at;
      if (!isList) {
        const key = string();
        const to = at;
        blank();
        at++; // the colon
        if (key === step) {
          best = [from, to];
          return true;
        }
      } else if (i === step) {
        best = [from, from + 1];
        return true;
      }
      skip();
      blank();
      if (text[at] === ",") at++;
    }
    return false;
  };
  for (const step of steps(path)) if (!enter(step)) break;
  return best;
}
