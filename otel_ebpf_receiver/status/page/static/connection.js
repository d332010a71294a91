// One stream of server-sent events that comes back: after an agent's restart, when there is room again, when the page is looked at again.

const AGAIN_MS = 2000;
const HIDDEN_MS = 30000;

export class Connection {
  // `on`: event name to a function of its data. `told`: called with "waiting", "live" or "gone".
  constructor(url, on, told = () => {}) {
    this.url = url;
    this.on = on;
    this.told = told;
    this.source = null;
    this.timer = 0;
    this.wanted = false;
    this.hidden = 0;
    document.addEventListener("visibilitychange", () => this.look());
  }

  open(url = this.url) {
    this.url = url;
    this.wanted = true;
    this.begin();
  }

  close() {
    this.wanted = false;
    this.end();
  }

  begin() {
    this.end();
    const source = new EventSource(this.url);
    this.source = source;
    source.onopen = () => this.told("live");
    source.onerror = () => {
      this.told("gone");
      // The browser tries again by itself, but not after an answer that is no stream, as when there are too many listeners.
      if (source.readyState === EventSource.CLOSED && this.source === source) this.timer = setTimeout(() => this.begin(), AGAIN_MS);
    };
    for (const [name, take] of Object.entries(this.on)) {
      source.addEventListener(name, (event) => {
        if (this.source === source) take(JSON.parse(event.data));
      });
    }
  }

  end() {
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
  }

  // A page that nobody sees costs the agent nothing.
  look() {
    clearTimeout(this.hidden);
    if (!this.wanted) return;
    if (document.hidden) this.hidden = setTimeout(() => this.end(), HIDDEN_MS);
    else if (!this.source) this.begin();
  }
}
