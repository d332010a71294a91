// The stream of exchanges. The agent filters and thins it; pausing closes the stream, so that it costs nothing.

import { Connection } from "/page/connection.js";
import { bytes, clock, count, draw, make, nanoseconds, say } from "/page/text.js";

const ROWS_MAX = 150;
const DRAW_MS = 400;
const TYPING_MS = 300;
const RATE_MS = 5000;

export class Stream {
  constructor(body, note, controls) {
    this.body = body;
    this.note = note;
    this.controls = controls;
    this.recent = [];
    this.waiting = [];
    this.paused = false;
    this.connection = new Connection(this.url(), { exchanges: (found) => this.take(found) });
    const { form, only, path, service, pause, clear } = controls;
    form.addEventListener("submit", (event) => event.preventDefault());
    only.addEventListener("change", () => this.filter());
    for (const input of [path, service]) {
      input.addEventListener("input", () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => this.filter(), TYPING_MS);
      });
    }
    pause.addEventListener("click", () => this.pause(!this.paused));
    clear.addEventListener("click", () => this.empty());
    // One stop of the Tab key for all rows; the arrows go through them.
    body.closest(".scroll").addEventListener("keydown", (event) => this.move(event));
    this.connection.open();
    setInterval(() => this.tell(), 1000);
    setInterval(() => this.draw(), DRAW_MS);
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...this.body.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step] ?? (step > 0 ? buttons.at(-1) : null);
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  url() {
    const { only, path, service } = this.controls;
    const wanted = new URLSearchParams();
    if (only.value) wanted.set("only", only.value);
    if (path.value.trim()) wanted.set("path", path.value.trim());
    if (service.value.trim()) wanted.set("service", service.value.trim());
    return "/page/exchanges?" + wanted;
  }

  filter() {
    this.empty();
    if (this.paused) this.connection.url = this.url();
    else this.connection.open(this.url());
  }

  empty() {
    this.body.replaceChildren();
    this.recent = [];
    this.waiting = [];
    this.tell();
  }

  pause(wanted) {
    if (wanted === this.paused) return;
    this.paused = wanted;
    this.controls.pause.setAttribute("aria-pressed", String(wanted));
    if (wanted) this.connection.close();
    else this.connection.open(this.url());
    this.tell();
  }

  take(found) {
    this.recent.push({ at: Date.now(), shown: found.rows.length, matching: found.matching, skipped: found.skipped });
    this.waiting = [...found.rows.sort((one, other) => other.time - one.time), ...this.waiting].slice(0, ROWS_MAX);
  }

  // A row that moves cannot be clicked.
  get isHeld() {
    return this.body.matches(":hover") || this.body.contains(document.activeElement);
  }

  // Rows come in more often than they can be read: they are made a few times a second, and not at all where nobody sees them.
  draw() {
    if (!this.waiting.length || document.hidden || this.paused || this.isHeld) return;
    const over = this.body.childElementCount + this.waiting.length - ROWS_MAX;
    for (let left = over; left > 0; left--) this.body.lastElementChild?.remove();
    this.body.prepend(...this.waiting.map((row) => this.row(row)));
    this.waiting = [];
  }

  tell() {
    const now = Date.now();
    this.recent = this.recent.filter((one) => now - one.at < RATE_MS);
    const sum = (name) => this.recent.reduce((total, one) => total + one[name], 0);
    const [shown, matching, skipped] = [sum("shown"), sum("matching"), sum("skipped")];
    const each = (value) => count(Math.round(value / (RATE_MS / 1000)));
    if (this.paused) say(this.note, "Paused.");
    else if (this.isHeld) say(this.note, "Held while the pointer or the focus is on a row.");
    else if (!matching && !skipped) say(this.note, "Nothing that matches in the last seconds.");
    else if (shown === matching && !skipped) say(this.note, `All of ${each(matching)} a second.`);
    else say(this.note, `${each(shown)} of ${each(matching)} a second, evenly chosen${skipped ? `; ${each(skipped)} a second were not compared with the path` : ""}.`);
  }

  row(row) {
    const failed = row.error !== null || row.status >= 500;
    const time = make("button", { type: "button", tabindex: "-1", class: "link", text: clock(row.time), "aria-expanded": "false", title: "Show everything about this exchange" });
    const status = row.status === null ? row.error : String(row.status);
    const grade = failed ? "bad" : row.status >= 400 ? "some" : "";
    const element = make("tr", { class: failed ? "failed" : "" },
      make("td", {}, time),
      make("td", { class: "end", text: row.client, title: row.client }),
      make("td", { class: "end", text: row.server, title: row.server }),
      make("td", { text: row.method }),
      make("td", { class: "path", text: row.path, title: row.path }),
      make("td", { class: `number ${grade}`, text: status, title: row.error }),
      make("td", { class: "number", text: nanoseconds(row.first) }),
      make("td", { class: "number", text: nanoseconds(row.duration) }),
      bar(row.parts),
      make("td", { class: "number", text: `${bytes(row.sent)} / ${bytes(row.received)}` }));
    time.addEventListener("click", () => this.detail(element, time, row));
    return element;
  }

  // What is looked at must not be pushed away: opening a row pauses.
  detail(element, button, row) {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) {
      element.nextElementSibling.remove();
      return;
    }
    this.pause(true);
    const list = make("dl");
    const [request, wait, response] = row.parts.map(nanoseconds);
    const told = { "request sent in": request, "waited for": wait, "response received in": response, ...row.attributes };
    for (const [name, value] of Object.entries(told)) {
      list.append(make("div", {}, make("dt", { text: name }), make("dd", { text: Array.isArray(value) ? value.join(", ") : String(value) })));
    }
    element.after(make("tr", { class: "detail" }, make("td", { colspan: element.childElementCount }, list)));
  }
}

function bar(parts) {
  const all = parts.reduce((total, part) => total + part, 0) || 1;
  const said = parts.map(nanoseconds);
  const label = `request ${said[0]}, wait ${said[1]}, response ${said[2]}`;
  const svg = draw("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": label });
  let x = 0;
  for (const [at, kind] of ["request", "wait", "response"].entries()) {
    const width = (100 * parts[at]) / all;
    svg.append(draw("rect", { class: kind, x, y: 0, width, height: 10 }));
    x += width;
  }
  return make("td", { title: label }, svg);
}
