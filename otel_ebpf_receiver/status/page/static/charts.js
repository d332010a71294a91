// Charts by uPlot: two large ones, and sparklines for the table. Colours come from the style sheet, so a change of theme makes them anew.

import { SECONDS } from "/page/history.js";
import { milliseconds, rate } from "/page/text.js";

const X = Array.from({ length: SECONDS }, (_, at) => at - SECONDS + 1);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  // `lines`: name, colour variable, fill variable or nothing; `shown`: how a value is written.
  constructor(place, lines, shown) {
    this.place = place;
    this.lines = lines;
    this.shown = shown;
    this.data = lines.map(() => new Array(SECONDS).fill(0));
    this.width = 0;
    new ResizeObserver(() => this.fit()).observe(place);
    this.renew();
  }

  renew() {
    if (this.plot) this.plot.destroy();
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--soft"), grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    this.width = Math.max(260, this.place.clientWidth);
    this.plot = new uPlot({
      width: this.width,
      height: 130,
      scales: { x: { time: false, range: [-SECONDS + 1, 0] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [
        { ...axis, size: 22, values: (_, ticks) => ticks.map((tick) => (tick === 0 ? "now" : `${tick} s`)) },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => this.shown(tick)) },
      ],
      series: [
        { label: "at", value: (_, value) => (value === null ? "" : `${value} s`) },
        ...this.lines.map(([name, line, fill]) => ({
          label: name,
          stroke: colour(line),
          fill: fill && colour(fill),
          width: 1.5,
          points: { show: false },
          value: (_, value) => (value === null ? "" : this.shown(value)),
        })),
      ],
    }, [X, ...this.data], this.place);
  }

  fit() {
    const width = Math.max(260, this.place.clientWidth);
    if (width !== this.width) this.plot.setSize({ width, height: 130 });
    this.width = width;
  }

  show(data) {
    this.data = data;
    this.plot.setData([X, ...data]);
    // Under the pointer the legend tells that moment, else the last second.
    if (this.plot.cursor.idx == null) this.plot.setLegend({ idx: SECONDS - 1 });
  }
}

export const rates = (place) => new Chart(place, [["requests", "--accent", "--fill"], ["errors", "--bad"]], rate);
export const durations = (place) => new Chart(place, [["p95", "--wait"]], (value) => (value ? milliseconds(value) : "0"));

export class Spark {
  constructor(place, lines) {
    this.place = place;
    this.lines = lines;
    this.data = lines.map(() => new Array(SECONDS).fill(0));
    this.renew();
  }

  renew() {
    if (this.plot) this.plot.destroy();
    this.plot = new uPlot({
      width: 130,
      height: 24,
      padding: [2, 0, 2, 0],
      cursor: { show: false },
      legend: { show: false },
      scales: { x: { time: false, range: [-SECONDS + 1, 0] }, y: { range: (_, low, high) => [0, high || 1] } },
      axes: [{ show: false }, { show: false }],
      series: [{}, ...this.lines.map(([line, fill]) => ({ stroke: colour(line), fill: fill && colour(fill), width: 1.2, points: { show: false } }))],
    }, [X, ...this.data], this.place);
  }

  show(data) {
    this.data = data;
    this.plot.setData([X, ...data]);
  }

  drop() {
    this.plot.destroy();
  }
}
