/** A clock that ticks every five seconds, so that "2 min ago" stays true on the page. */
class Now {
  ms = $state(Date.now());
  constructor() {
    setInterval(() => (this.ms = Date.now()), 5000);
  }
}
export const now = new Now();
