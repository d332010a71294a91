// The page put together: one stream of the state, one of exchanges, and what is chosen.

import { durations, rates } from "/page/charts.js";
import { Connection } from "/page/connection.js";
import { Health } from "/page/health.js";
import { History } from "/page/history.js";
import { ServiceMap } from "/page/map.js";
import { Stream } from "/page/stream.js";
import { RedTable, key } from "/page/table.js";
import { milliseconds, rate, say, share } from "/page/text.js";

const SILENCE_MS = 5000;
const at = (id) => document.getElementById(id);

const workloads = new History();
const routes = new History();
const total = new History();
let traffic = null;
let selected = null;
let heard = 0;

const map = new ServiceMap(at("map-drawing"), at("map-note"), select);
const table = new RedTable(document.querySelector("#red table"), at("red-heads"), at("red-note"), select);
const health = new Health({
  taps: at("taps"), exporters: at("exporters"), losses: at("losses"), note: at("agent-note"), open: at("tile-open"), lost: at("tile-lost"), host: at("host"),
});
const charts = { rate: rates(at("chart-rate")), slow: durations(at("chart-slow")) };
const controls = {
  form: at("filter"), only: at("filter-only"), path: at("filter-path"), service: at("filter-service"), pause: at("pause"), clear: at("clear"),
};
new Stream(at("stream"), at("stream-note"), controls);

const connection = new Connection("/page/state", { full: (state) => take(state, true), state: (state) => take(state, false) }, connected);
connection.open();
at("show-all").addEventListener("click", () => select(null));
setInterval(() => {
  if (heard && Date.now() - heard > SILENCE_MS) connected("gone");
}, 1000);

function connected(state) {
  const place = at("connection");
  if (state === "live" && !heard) state = "waiting";
  place.dataset.state = state;
  say(place, { live: "live", waiting: "connecting", gone: "no answer from the agent, trying again" }[state]);
}

function take(state, isFull) {
  heard = Date.now();
  connected("live");
  traffic = state.traffic;
  const nodes = new Map(traffic.nodes.map((node) => [node.id, node]));
  const change = (history, items) => (isFull ? history.replace(items) : history.add(items));
  change(workloads, traffic.workloads.map((row) => [key(nodes.get(row.node)), row.last]));
  change(routes, traffic.routes.map((row) => [row.id, row.last]));
  change(total, [["", traffic.total.last]]);
  if (selected !== null && !nodes.has(selected)) selected = null;
  health.show(state.health);
  show();
}

function show() {
  const node = traffic.nodes.find((one) => one.id === selected);
  const row = traffic.workloads.find((one) => one.node === selected);
  tiles(node ? row ?? { rate: 0, errors: 0, percentiles: [0, 0, 0] } : traffic.total);
  map.show(traffic, selected);
  table.show(traffic, workloads, routes, row ? selected : null);
  say(at("charts-title"), node ? (node.namespace ? `${node.namespace}/${node.name}` : node.name) : "All workloads");
  at("show-all").hidden = !node;
  const [counts, errors, slow] = node ? workloads.of(key(node)) : total.of("");
  charts.rate.show([counts, errors]);
  charts.slow.show([slow]);
}

function tiles({ rate: all, errors, percentiles }) {
  say(at("tile-rate"), rate(all));
  say(at("tile-errors"), share(errors, all), errors ? "bad" : "");
  ["p50", "p95", "p99"].forEach((name, place) => say(at(`tile-${name}`), milliseconds(percentiles[place])));
  at("chart-rate").setAttribute("aria-label", `Requests and errors a second, last minute; now ${rate(all)}, ${share(errors, all)} errors`);
  at("chart-slow").setAttribute("aria-label", `95th percentile of the duration, last minute; over the minute ${milliseconds(percentiles[1])}`);
}

function select(node) {
  selected = node === selected ? null : node;
  if (traffic) show();
}

// The theme: the system's, unless the reader chose one.
const theme = at("theme");
theme.value = localStorage.getItem("theme") ?? "";
function dress() {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
  else delete document.documentElement.dataset.theme;
  for (const each of [charts.rate, charts.slow, table]) each.renew();
}
theme.addEventListener("change", () => {
  localStorage.setItem("theme", theme.value);
  dress();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
dress();
