// The agent's own health: taps with their marks, what was not reported, exporters and queues, the process.

import { bytes, count, make, say } from "/page/text.js";

const MARKS = { attached: "ok", "one-way": "some", failed: "bad" };

export class Health {
  constructor({ taps, exporters, losses, note, open, lost, host }) {
    this.places = { taps, exporters, losses, note, open, lost, host };
    this.before = null;
    this.used = "";
  }

  show(health) {
    const { places } = this;
    say(places.host, health.host);
    replaceRows(places.taps, health.taps.map(tap));
    replaceRows(places.exporters, health.exporters.length ? health.exporters.map(exporter) : [["none", "", "", "", "", ""].map((text) => ({ text }))]);
    this.losses(health.kernel);
    say(places.open, count(health.kernel.open));
    this.process(health);
  }

  losses(kernel) {
    const { losses, lost } = this.places;
    const all = [...kernel.losses, { name: "evicted", text: "open requests forgotten for want of room", count: kernel.evicted }];
    const rows = all.map((one) => [one.text, one.count, one.count ? "some" : ""]);
    for (const [name, number] of Object.entries(kernel.opaque)) rows.push([`connections that are ${{ tls: "TLS", http2: "HTTP/2", other: "not HTTP" }[name]}`, number, ""]);
    rows.push(["copies of one exchange on several interfaces, told once", kernel.copies, ""], ["spans that sampling left out", kernel.sampled_out, ""]);
    losses.replaceChildren(...rows.map(([text, number, mark]) => make("div", {}, make("dt", { text }), make("dd", { text: count(number), class: mark }))));
    const of = (name) => kernel.losses.find((one) => one.name === name).count;
    const missed = of("http_lost") + of("http_given_up") + kernel.evicted;
    say(lost, count(missed), missed ? "bad" : "");
  }

  process({ process, version, started, kernel }) {
    const before = this.before ?? process;
    const elapsed = process.now_s - before.now_s;
    // Less than half a second says nothing; less than nothing is another agent.
    if (elapsed > 0.5) this.used = `, ${((100 * (process.cpu_s - before.cpu_s)) / elapsed).toFixed(1)} % of a core`;
    if (elapsed > 0.5 || elapsed < 0 || !this.before) this.before = process;
    const minutes = Math.max(0, Math.round((Date.now() / 1000 - started) / 60));
    say(this.places.note, `version ${version}, up ${minutes} min${this.used}, ${bytes(process.resident_bytes)}; ${count(kernel.exchanges)} exchanges, ${count(kernel.packets)} packets`);
  }
}

function tap(one) {
  const { flows } = one;
  const state = { text: one.error ? `${one.state}: ${one.error}` : one.state, badge: MARKS[one.state] };
  const sided = { text: count(flows.one_sided), number: true, mark: flows.one_sided ? "some" : "" };
  return [{ text: one.interface }, { text: one.role }, state, ...["http", "tls", "http2", "other"].map((name) => ({ text: count(flows[name]), number: true })), sided];
}

function exporter(one) {
  const queued = one.queued_bytes ? `${count(one.queued)} (${bytes(one.queued_bytes)})` : count(one.queued);
  return [
    { text: one.name }, { text: one.signal }, { text: count(one.sent), number: true },
    { text: count(one.lost), number: true, mark: one.lost ? "bad" : "" }, { text: count(one.retried), number: true, mark: one.retried ? "some" : "" },
    { text: queued, number: true },
  ];
}

// Rows are few; cells are changed in place, so that a selection of text or a reader's position stays.
function replaceRows(body, rows) {
  while (body.childElementCount > rows.length) body.lastElementChild.remove();
  rows.forEach((cells, at) => {
    const row = body.children[at] ?? body.appendChild(make("tr", {}, ...cells.map((cell) => make("td", {}, ...(cell.badge ? [make("span")] : [])))));
    cells.forEach((cell, place) => {
      const td = row.children[place];
      if (cell.badge) say(td.firstElementChild, cell.text, `badge ${cell.badge}`);
      else say(td, cell.text, `${cell.number ? "number" : ""} ${cell.mark ?? ""}`.trim());
    });
  });
}
