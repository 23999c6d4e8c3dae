/** Dark, light or the system's choice; kept in this browser. public/theme.js applies it before the first paint. */
export type ThemeChoice = "system" | "dark" | "light";
const STORED = "gleaner.theme";

function stored(): ThemeChoice {
  try {
    const value = localStorage.getItem(STORED);
    return value === "dark" || value === "light" ? value : "system";
  } catch {
    return "system";
  }
}

class Theme {
  choice = $state<ThemeChoice>(stored());
  #systemDark = $state(matchMedia("(prefers-color-scheme: dark)").matches);

  constructor() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => (this.#systemDark = event.matches));
  }

  /** What is on screen now; charts and canvases read it to repaint. */
  get shown(): "dark" | "light" {
    return this.choice === "system" ? (this.#systemDark ? "dark" : "light") : this.choice;
  }

  set(choice: ThemeChoice) {
    this.choice = choice;
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    try {
      localStorage.setItem(STORED, choice);
    } catch {
      /* storage is blocked: the choice lasts until the page is closed */
    }
  }

  toggle() {
    this.set(this.shown === "dark" ? "light" : "dark");
  }
}

export const theme = new Theme();
