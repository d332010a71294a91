// The service map: who calls whom, placed by dagre, drawn as SVG whose nodes are buttons. Placed anew only when something comes or goes.

import { draw, grade, rate, say, share } from "/page/text.js";

const NODES_MAX = 40;
const HEIGHT = 42;
const WIDEST = 230;

export class ServiceMap {
  constructor(place, note, select) {
    this.place = place;
    this.note = note;
    this.select = select;
    this.shape = "";
  }

  show(traffic, selected) {
    const graph = reduced(traffic);
    this.note.hidden = graph.nodes.length > 0 && !graph.left;
    if (graph.left) say(this.note, `${graph.left} more with less traffic are not drawn.`);
    const shape = JSON.stringify([graph.nodes.map((node) => [node.id, node.serial]), graph.edges.map((edge) => edge.slice(0, 2))]);
    if (shape !== this.shape) this.draw(graph);
    this.shape = shape;
    this.colour(graph, selected);
  }

  draw(graph) {
    const focused = this.place.contains(document.activeElement) ? document.activeElement.dataset.node : null;
    const layout = new dagre.graphlib.Graph();
    layout.setGraph({ rankdir: "LR", nodesep: 16, ranksep: 110, marginx: 8, marginy: 8 });
    layout.setDefaultEdgeLabel(() => ({}));
    for (const node of graph.nodes) {
      layout.setNode(String(node.id), { width: Math.min(WIDEST, Math.max(120, 7.2 * node.name.length + 24)), height: HEIGHT });
    }
    for (const [client, server] of graph.edges) if (client !== server) layout.setEdge(String(client), String(server));
    dagre.layout(layout);
    const { width, height } = graph.nodes.length ? layout.graph() : { width: 1, height: 1 };
    const svg = draw("svg", { viewBox: box(width, height), role: "group", "aria-labelledby": "map-title" });
    svg.append(draw("defs", {}, draw("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto", markerUnits: "userSpaceOnUse" }, draw("path", { d: "M0 0L8 4L0 8z" }))));
    this.edges = graph.edges.map((edge) => this.edge(svg, layout, edge));
    // Above all lines, so that none crosses a number.
    svg.append(...this.edges.map((edge) => edge.text));
    this.nodes = graph.nodes.map((node) => this.node(svg, layout, node));
    this.place.replaceChildren(svg);
    if (focused) this.place.querySelector(`[data-node="${focused}"]`)?.focus();
  }

  edge(svg, layout, [client, server]) {
    const points = client === server ? loop(layout.node(String(client))) : layout.edge(String(client), String(server)).points;
    const path = draw("path", { d: curve(points), "marker-end": "url(#arrow)", "aria-hidden": "true" });
    const middle = points[Math.floor(points.length / 2)];
    const text = draw("text", { class: "edge", x: middle.x, y: middle.y - 7, "aria-hidden": "true" });
    svg.append(path);
    return { path, text };
  }

  node(svg, layout, node) {
    const { x, y, width } = layout.node(String(node.id));
    const group = draw("g", { tabindex: "0", role: "button", "data-node": node.id });
    const most = Math.floor((width - 12) / 7);
    const name = node.name.length > most ? node.name.slice(0, most - 1) + "…" : node.name;
    const sub = draw("text", { class: "sub", x, y: y + 13 });
    group.append(draw("rect", { x: x - width / 2, y: y - HEIGHT / 2, width, height: HEIGHT, rx: 8 }), draw("text", { x, y: y - 3, text: name }), sub, draw("title", { text: node.name }));
    group.addEventListener("click", () => this.select(node.id));
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.select(node.id);
      }
    });
    svg.append(group);
    return { group, sub };
  }

  colour(graph, selected) {
    graph.edges.forEach(([, , all, errors], at) => {
      const { path, text } = this.edges[at];
      path.setAttribute("class", all ? grade(errors, all) : "idle");
      path.setAttribute("stroke-width", all ? Math.min(6, 1.2 + Math.log10(1 + all)) : 1);
      say(text, all ? rate(all) + (errors ? ` · ${share(errors, all)}` : "") : "");
    });
    graph.nodes.forEach((node, at) => {
      const { group, sub } = this.nodes[at];
      const all = node.rate;
      group.setAttribute("class", `node ${all ? grade(node.errors, all) : ""} ${node.id === selected ? "selected" : ""}`);
      group.setAttribute("aria-pressed", String(node.id === selected));
      say(sub, all ? `${rate(all)}${node.errors ? ` · ${share(node.errors, all)}` : ""}` : node.namespace || "client");
      const where = node.namespace ? `${node.namespace}/${node.name}` : node.name;
      group.setAttribute("aria-label", all ? `${where}: ${rate(all)}, ${share(node.errors, all)} errors` : `${where}: asks only`);
    });
  }
}

// A small graph is not blown up, and stands in the middle.
function box(width, height) {
  const [wide, high] = [Math.max(width, 700), Math.max(height, 240)];
  return `${(width - wide) / 2} ${(height - high) / 2} ${wide} ${high}`;
}

// The busiest nodes and what is between them.
function reduced(traffic) {
  const seen = new Map(traffic.nodes.map((node) => [node.id, { ...node, rate: 0, errors: 0, weight: 0 }]));
  for (const row of traffic.workloads) Object.assign(seen.get(row.node), { rate: row.rate, errors: row.errors });
  for (const [client, server, all] of traffic.edges) for (const end of [client, server]) seen.get(end).weight += all + 1e-6;
  const ordered = [...seen.values()].sort((one, other) => other.weight - one.weight || one.id - other.id);
  const nodes = ordered.slice(0, NODES_MAX).sort((one, other) => one.id - other.id);
  const kept = new Set(nodes.map((node) => node.id));
  const edges = traffic.edges.filter(([client, server]) => kept.has(client) && kept.has(server));
  return { nodes, edges, left: ordered.length - nodes.length };
}

function curve(points) {
  const [first, ...rest] = points;
  let path = `M${first.x} ${first.y}`;
  for (let at = 0; at < rest.length - 1; at++) {
    const end = at === rest.length - 2 ? rest[at + 1] : { x: (rest[at].x + rest[at + 1].x) / 2, y: (rest[at].y + rest[at + 1].y) / 2 };
    path += `Q${rest[at].x} ${rest[at].y} ${end.x} ${end.y}`;
  }
  return rest.length === 1 ? path + `L${rest[0].x} ${rest[0].y}` : path;
}

function loop({ x, y, width }) {
  const top = y - HEIGHT / 2;
  return [{ x: x - width / 4, y: top }, { x: x - width / 4, y: top - 22 }, { x: x + width / 4, y: top - 22 }, { x: x + width / 4, y: top }];
}
