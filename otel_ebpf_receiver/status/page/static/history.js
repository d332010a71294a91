// The last minute, second by second, of things that come and go. Each is [exchanges, errors, p95 in ms].

export const SECONDS = 60;

export class History {
  constructor() {
    this.kept = new Map();
  }

  // The whole past, at the start.
  replace(items) {
    this.kept.clear();
    this.add(items);
  }

  // One second of every item; what is not among them is gone.
  add(items) {
    const next = new Map();
    for (const [key, last] of items) {
      const old = this.kept.get(key) ?? [[], [], []];
      next.set(key, old.map((line, at) => [...line, ...last[at]].slice(-SECONDS)));
    }
    this.kept = next;
  }

  // Three lines of `SECONDS` values, zero before the first.
  of(key) {
    const found = this.kept.get(key) ?? [[], [], []];
    return found.map((line) => [...new Array(SECONDS - line.length).fill(0), ...line]);
  }
}
