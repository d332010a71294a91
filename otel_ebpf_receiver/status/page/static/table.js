// The table of rates, errors and durations: a group per workload with its routes below it, each with sparklines. Rows are kept and changed.

import { Spark } from "/page/charts.js";
import { grade, make, milliseconds, rate, say, share } from "/page/text.js";

const GROUPS_MAX = 30;
const ROUTES_MAX = 12;
const ORDER_MS = 5000;

export class RedTable {
  constructor(table, heads, note, select) {
    this.table = table;
    this.note = note;
    this.select = select;
    this.groups = new Map();
    this.sort = { by: "rate", down: true };
    this.ordered = 0;
    for (const head of heads.querySelectorAll("th[data-sort]")) {
      head.firstElementChild.addEventListener("click", () => this.sortBy(heads, head));
    }
  }

  sortBy(heads, head) {
    const by = head.dataset.sort;
    this.sort = { by, down: this.sort.by === by ? !this.sort.down : by !== "name" };
    for (const other of heads.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
    this.ordered = 0;
    if (this.last) this.show(...this.last);
  }

  renew() {
    for (const group of this.groups.values()) for (const row of group.rows.values()) for (const spark of row.sparks) spark.renew();
  }

  show(traffic, workloads, routes, selected) {
    this.last = [traffic, workloads, routes, selected];
    const nodes = new Map(traffic.nodes.map((node) => [node.id, node]));
    const wanted = traffic.workloads
      .map((row) => ({ ...row, of: nodes.get(row.node) }))
      .filter((row) => selected === null || row.node === selected)
      .sort((one, other) => other.rate - one.rate);
    const shown = wanted.slice(0, GROUPS_MAX);
    const keys = new Set(shown.map((row) => key(row.of)));
    for (const [old, group] of this.groups) if (!keys.has(old)) this.drop(old, group);
    const left = { workloads: wanted.length - shown.length, routes: 0 };
    for (const row of shown) {
      const mine = traffic.routes.filter((route) => route.node === row.node).sort((one, other) => other.rate - one.rate);
      left.routes += Math.max(0, mine.length - ROUTES_MAX);
      this.group(row, mine.slice(0, ROUTES_MAX), workloads, routes, selected);
    }
    this.order();
    const more = [];
    if (left.workloads) more.push(`${left.workloads} more workloads`);
    if (left.routes) more.push(`${left.routes} more routes`);
    say(this.note, more.length ? `${more.join(" and ")} with less traffic are not listed; choose a workload in the map.` : shown.length ? "" : "Nothing seen yet.");
  }

  group(row, mine, workloads, routes, selected) {
    const id = key(row.of);
    if (!this.groups.has(id)) {
      const body = make("tbody");
      this.table.append(body);
      this.groups.set(id, { body, rows: new Map() });
    }
    const group = this.groups.get(id);
    group.values = values(row, row.of.name);
    const kept = new Set(["", ...mine.map((route) => String(route.id))]);
    for (const [old, one] of group.rows) if (!kept.has(old)) this.dropRow(group, old, one);
    const head = this.row(group, "", () => this.head(row));
    fill(head, row, workloads.of(id));
    head.element.classList.toggle("selected", row.node === selected);
    head.element.querySelector("button").setAttribute("aria-pressed", String(row.node === selected));
    for (const route of mine) {
      const name = `${route.method} ${route.route}`.trim();
      const one = this.row(group, String(route.id), () => cells("route", make("td", { text: name || "others", title: name, class: "path" })));
      one.values = values(route, name);
      fill(one, route, routes.of(route.id));
    }
  }

  head(row) {
    const name = row.of.namespace ? `${row.of.namespace}/${row.of.name}` : row.of.name;
    const button = make("button", { type: "button", class: "link", text: name, title: "Show only this workload" });
    button.addEventListener("click", () => this.select(row.node));
    return cells("workload", make("td", {}, button));
  }

  row(group, id, create) {
    if (!group.rows.has(id)) {
      const made = create();
      group.body.append(made.element);
      group.rows.set(id, made);
    }
    return group.rows.get(id);
  }

  // Rows that jump under the pointer or the focus cannot be read.
  order() {
    const now = Date.now();
    const isHeld = this.table.matches(":hover") || this.table.querySelector("tbody")?.parentElement.contains(document.activeElement);
    if (this.ordered && (now - this.ordered < ORDER_MS || isHeld)) return;
    this.ordered = now;
    const { by, down } = this.sort;
    const before = (one, other) => (down ? -1 : 1) * (one.values[by] < other.values[by] ? -1 : one.values[by] > other.values[by] ? 1 : 0);
    const focused = document.activeElement;
    for (const group of [...this.groups.values()].sort(before)) {
      this.table.append(group.body);
      const rest = [...group.rows].filter(([id]) => id).map(([, row]) => row);
      for (const row of rest.sort(before)) group.body.append(row.element);
    }
    if (this.table.contains(focused)) focused.focus();
  }

  drop(id, group) {
    for (const [old, row] of group.rows) this.dropRow(group, old, row);
    group.body.remove();
    this.groups.delete(id);
  }

  dropRow(group, id, row) {
    for (const spark of row.sparks) spark.drop();
    row.element.remove();
    group.rows.delete(id);
  }
}

export const key = (node) => `${node.id}:${node.serial}`;

function values(row, name) {
  const [p50, p95, p99] = row.percentiles;
  return { name, rate: row.rate, share: row.rate ? row.errors / row.rate : 0, p50, p95, p99 };
}

function cells(kind, first) {
  const number = () => make("td", { class: "number" });
  const made = { rate: number(), spark: make("td"), share: number(), p50: number(), p95: number(), p99: number(), slow: make("td") };
  const element = make("tr", { class: kind }, first, ...Object.values(made));
  made.spark.setAttribute("aria-hidden", "true");
  made.slow.setAttribute("aria-hidden", "true");
  return { element, made, sparks: [new Spark(made.spark, [["--accent", "--fill"], ["--bad"]]), new Spark(made.slow, [["--wait"]])] };
}

function fill({ made, sparks }, row, [counts, errors, slow]) {
  say(made.rate, rate(row.rate));
  say(made.share, share(row.errors, row.rate), `number ${row.errors ? grade(row.errors, row.rate) : ""}`);
  ["p50", "p95", "p99"].forEach((name, at) => say(made[name], milliseconds(row.percentiles[at])));
  sparks[0].show([counts, errors]);
  sparks[1].show([slow]);
}
