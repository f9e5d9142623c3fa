// The map: services in layers from clients to servers. Places are computed only when a service or
// an edge comes or goes; everything else of an answer changes widths, colours and labels.

import { arrange, curve } from "./layout.ts";
import { by, drawing, say, visible } from "./dom.ts";
import { ORDER, SIGNS, type Row, type State } from "./edges.ts";
import type { MapEdge } from "./api.ts";
import { quantile, rate, shortened } from "./text.ts";

/** With more services than this, namespaces are folded into one node each. */
const FOLD_ABOVE = 40;
/** What is drawn at most, worst and busiest first. */
const MOST_NODES = 120;
const MOST_LINKS = 300;
/** A link that is gone stays, idle, for so long, so that the drawing does not jump. */
const LINGERS_MS = 60_000;
const LONGEST_NAME = 26;

interface Node {
  id: string;
  name: string;
  /** Services that it stands for. */
  members: Set<string>;
  namespace: string;
  label: string;
  width: number;
  state: State;
}

interface Link {
  id: string;
  from: string;
  to: string;
  ports: Set<number>;
  state: State;
  rate: number;
  requests: number;
  p99: number | null;
  row: Row;
  seen: number;
}

interface Drawn {
  group: SVGElement;
  line: SVGElement;
  hit: SVGElement;
  label: SVGElement;
  title: SVGElement;
}

export interface Choices {
  /** A row was chosen. */
  edge: (row: Row) => void;
  /** A service was chosen, by its full name. */
  service: (name: string) => void;
  /** A folded namespace was chosen. */
  unfold: (namespace: string) => void;
}

export class ServiceMap {
  private links = new Map<string, Link>();
  private drawnAs = "";
  private view = "";
  private readonly nodesDrawn = new Map<string, { group: SVGElement; title: SVGElement }>();
  private readonly linksDrawn = new Map<string, Drawn>();
  private size = { width: 1, height: 1 };

  constructor(private readonly choices: Choices) {
    new ResizeObserver(() => this.fit()).observe(by("map-frame"));
  }

  /** Draws these rows; `view` is what the reader chose: with another one nothing lingers. */
  update(rows: Row[], onMap: Map<string, MapEdge>, seconds: number, unfolded: string[], view: string): void {
    const now = performance.now();
    const names = new Set(rows.flatMap((row) => [row.client, row.server]));
    const folded = names.size > FOLD_ABOVE ? namespaces(rows, unfolded) : new Set<string>();
    if (view !== this.view) this.links.clear();
    this.view = view;
    for (const link of this.links.values()) Object.assign(link, { rate: 0, requests: 0, p99: null, state: "idle" });
    const nodes = new Map<string, Node>();
    const fresh = new Set<string>();
    for (const row of rows) {
      const [from, to] = [place(row.client, row.edge.client_namespace, folded), place(row.server, row.edge.server_namespace, folded)];
      const id = JSON.stringify([from, to]);
      const numbers = onMap.get(row.key);
      const requests = numbers && !fresh.has(row.key) ? numbers.requests_per_second : numbers ? 0 : row.requests;
      const connects = numbers && !fresh.has(row.key) ? numbers.connections_per_second : numbers ? 0 : row.connects;
      fresh.add(row.key);
      const p99 = numbers ? numbers.p99_seconds : row.edge.request.p99_seconds;
      const known = this.links.get(id);
      const link = known ?? { id, from, to, ports: new Set(), state: "idle" as State, rate: 0, requests: 0, p99: null, row, seen: now };
      link.rate += Math.max(requests, connects);
      link.requests += requests;
      if (p99 !== null) link.p99 = Math.max(link.p99 ?? 0, p99);
      if (ORDER[row.state] <= ORDER[link.state]) Object.assign(link, { state: row.state, row });
      link.ports.add(row.edge.port);
      link.seen = now;
      this.links.set(id, link);
    }
    for (const [id, link] of this.links) {
      if (now - link.seen > LINGERS_MS) this.links.delete(id);
    }
    const kept = this.kept();
    for (const link of kept) {
      const { row } = link;
      node(nodes, link.from, row.client, row.edge.client_namespace, folded);
      node(nodes, link.to, row.server, row.edge.server_namespace, folded);
    }
    for (const row of rows) {
      nodes.get(place(row.client, row.edge.client_namespace, folded))?.members.add(row.client);
      nodes.get(place(row.server, row.edge.server_namespace, folded))?.members.add(row.server);
    }
    for (const link of kept) {
      const server = nodes.get(link.to);
      if (server && ORDER[link.state] < ORDER[server.state]) server.state = link.state;
    }
    const topology = JSON.stringify([[...nodes.keys()].sort(), kept.map((link) => link.id).sort()]);
    if (topology !== this.drawnAs) this.place(nodes, kept);
    this.drawnAs = topology;
    for (const link of kept) this.show(link, seconds);
    for (const one of nodes.values()) this.name(one);
    const missing = this.links.size - kept.length;
    const notes = [
      rows.length === 0 ? "No connections to draw in this window." : "",
      folded.size > 0 ? `${names.size} services: namespaces are folded, choose one to unfold it.` : "",
      missing > 0 ? `${missing} more edges are not drawn: filter (/) to see them.` : "",
    ];
    say(by("map-note"), notes.filter(Boolean).join(" "));
  }

  /** The links that are drawn. */
  private kept(): Link[] {
    const all = [...this.links.values()].sort((a, b) => ORDER[a.state] - ORDER[b.state] || b.rate - a.rate);
    const nodes = new Set<string>();
    const kept: Link[] = [];
    for (const link of all) {
      const more = [link.from, link.to].filter((id) => !nodes.has(id));
      if (kept.length >= MOST_LINKS || nodes.size + more.length > MOST_NODES) continue;
      for (const id of more) nodes.add(id);
      kept.push(link);
    }
    return kept;
  }

  private place(nodes: Map<string, Node>, links: Link[]): void {
    const frame = by("map-frame");
    const { places, size } = arrange(nodes, links, frame.clientWidth / Math.max(1, frame.clientHeight));
    const layers = { links: drawing("g"), nodes: drawing("g"), labels: drawing("g") };
    this.linksDrawn.clear();
    this.nodesDrawn.clear();
    for (const link of links.toReversed()) {
      const route = places.links.get(link.id);
      if (!route) continue;
      const d = curve(route.points);
      const title = drawing("title");
      const line = drawing("path", { d, class: "line", "marker-end": "url(#arrow)" });
      const hit = drawing("path", { d, class: "hit" });
      const group = drawing("g", { class: "link", role: "button", tabindex: -1 }, title, line, hit);
      group.addEventListener("click", () => this.choices.edge(this.links.get(link.id)?.row ?? link.row));
      const text = drawing("text", { x: route.label.x, y: route.label.y + 4, class: "label", "text-anchor": "middle" });
      layers.links.append(group);
      layers.labels.append(text);
      this.linksDrawn.set(link.id, { group, line, hit, label: text, title });
    }
    for (const one of nodes.values()) {
      const { x, y } = places.nodes.get(one.id) ?? { x: 0, y: 0 };
      const w = one.width;
      const title = drawing("title");
      const group = drawing(
        "g",
        { class: "node", role: "button", tabindex: 0, transform: `translate(${x - w / 2} ${y - 15})` },
        title,
        drawing("rect", { width: w, height: 30, rx: 5 }),
        drawing("text", { x: w / 2, y: 19.5, "text-anchor": "middle" }, one.label),
      );
      const choose = () => (one.id.endsWith("/*") ? this.choices.unfold(one.namespace) : this.choices.service(one.name));
      group.addEventListener("click", choose);
      group.addEventListener("keydown", (event) => {
        if ((event as KeyboardEvent).key === "Enter") choose();
      });
      layers.nodes.append(group);
      this.nodesDrawn.set(one.id, { group, title });
    }
    this.size = size;
    by("map").setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    by("map-layers").replaceChildren(layers.links, layers.nodes, layers.labels);
    this.fit();
  }

  /** As large as there is room, unless that is too small to read: then it is scrolled. */
  private fit(): void {
    const frame = by("map-frame");
    const room = Math.min((frame.clientWidth - 8) / this.size.width, (frame.clientHeight - 8) / this.size.height);
    const scale = Math.min(2, Math.max(0.6, room));
    by("map").setAttribute("width", String(Math.floor(this.size.width * scale)));
    by("map").setAttribute("height", String(Math.floor(this.size.height * scale)));
  }

  private show(link: Link, seconds: number): void {
    const drawn = this.linksDrawn.get(link.id);
    if (!drawn) return;
    drawn.group.setAttribute("data-state", link.state);
    drawn.line.setAttribute("stroke-width", (1.2 + Math.log10(1 + link.rate) * 1.6).toFixed(1));
    const ends = `${link.row.client} → ${link.row.server}`;
    const ports = [...link.ports].slice(0, 5).join(", ");
    const why = link.row.why && link.state !== "ok" ? `: ${link.row.why}` : "";
    const numbers = link.requests > 0 ? `${rate(link.requests)} requests/s, P99 ${quantile(link.p99)}` : `${rate(link.rate)} connects/s`;
    const text = visible(`${ends}, port ${ports}: ${link.state}${why}; ${numbers}, ${Math.round(seconds)} s`);
    say(drawn.title, text);
    drawn.group.setAttribute("aria-label", text);
    const sign = link.state === "error" || link.state === "warning" ? `${SIGNS[link.state]} ` : "";
    say(drawn.label, `${sign}${link.p99 === null ? "" : quantile(link.p99)}`);
    drawn.label.setAttribute("data-state", link.state);
  }

  private name(one: Node): void {
    const drawn = this.nodesDrawn.get(one.id);
    if (!drawn) return;
    drawn.group.setAttribute("data-state", one.state);
    const what = one.id.endsWith("/*") ? `${one.members.size} services of ${one.namespace}: unfold` : `only the edges of ${one.name}`;
    say(drawn.title, visible(what));
    drawn.group.setAttribute("aria-label", `${one.label}: ${visible(what)}`);
  }
}

/** Namespaces with several services that the reader has not unfolded. */
function namespaces(rows: Row[], unfolded: string[]): Set<string> {
  const members = new Map<string, Set<string>>();
  const add = (namespace: string, name: string) => {
    if (namespace === "" || unfolded.includes(namespace)) return;
    const known = members.get(namespace) ?? new Set();
    members.set(namespace, known.add(name));
  };
  for (const { edge } of rows) {
    add(edge.client_namespace, edge.client);
    add(edge.server_namespace, edge.server);
  }
  return new Set([...members].filter(([, names]) => names.size > 1).map(([namespace]) => namespace));
}

/** The node of a service: itself, or its folded namespace. */
function place(name: string, namespace: string, folded: Set<string>): string {
  return folded.has(namespace) ? `${namespace}/*` : name;
}

function node(nodes: Map<string, Node>, id: string, name: string, namespace: string, folded: Set<string>): void {
  if (nodes.has(id)) return;
  const isFolded = folded.has(namespace);
  const shown = isFolded ? namespace : name;
  const label = visible(`${isFolded ? "▸ " : ""}${shortened(shown, LONGEST_NAME)}`);
  const width = Math.max(56, 7.6 * [...label].length + 20);
  nodes.set(id, { id, name: shown, members: new Set([name]), namespace, label, width, state: "ok" });
}
